//! Differencing images.

use super::{MIB, folder, open, put, read, runs, words};
use rimg_core::{
    BlockImage, Dependency, DependencyGate, ExtentKind, Limits, OpenOptions, Preallocation,
    RawOptions, Result, Storage,
};
use rimg_testkit::vhdx::{Block, VhdxImage};
use rimg_testkit::{MemoryDir, ModelDisk};
use std::sync::Arc;

/// A parent of eights with a hole, and a child with some of everything.
fn family(sector_bytes: u32) -> (MemoryDir, ModelDisk) {
    let size = 5 * MIB + 4096;
    let mut parent = VhdxImage { sector_bytes, ..VhdxImage::new(size) };
    let mut child = VhdxImage { sector_bytes, ..VhdxImage::new(size) };
    let mut model = ModelDisk::new(size);
    for block in [0, 1, 3, 5] {
        parent.blocks.insert(block, Block::Full(vec![8; 1 << 20]));
        let end = ((block + 1) * MIB).min(size);
        model.write(&vec![8; usize::try_from(end - block * MIB).unwrap()], block * MIB);
    }
    child = child.over(parent.data_write_guid, r".\parent.vhdx");
    let sector = u64::from(sector_bytes);
    // The first sectors of a byte of bits, one alone, and the last ones of the block.
    let last = MIB / sector;
    let bits = vec![0..3, 9..10, last - 2..last];
    for block in [1, 2] {
        child.blocks.insert(block, Block::Partial(bits.clone(), vec![7; 1 << 20]));
        for range in &bits {
            let len = usize::try_from((range.end - range.start) * sector).unwrap();
            model.write(&vec![7; len], block * MIB + range.start * sector);
        }
    }
    child.blocks.insert(3, Block::Zero);
    model.zero(3 * MIB..4 * MIB);
    child.blocks.insert(4, Block::Full(vec![6; 100]));
    model.write(&[6; 100], 4 * MIB);
    let dir = folder();
    put(&dir, "./parent.vhdx", &parent.build());
    put(&dir, "disk", &child.build());
    (dir, model)
}

#[test]
fn sectors_come_from_where_the_bits_say() {
    for sector in [512, 4096] {
        let (dir, model) = family(sector);
        let image = open(&dir, false);
        model.assert_same(image.as_ref(), "read");
        let sector = u64::from(sector);
        let of_bits = [
            (3 * sector, "data"),
            (6 * sector, "below"),
            (sector, "data"),
            (MIB - 12 * sector, "below"),
            (2 * sector, "data"),
        ];
        let mut wanted = vec![(MIB, "below")];
        wanted.extend(&of_bits[..4]);
        // The blocks lie one behind the other.
        wanted.push((5 * sector, "data"));
        wanted.extend(&of_bits[1..]);
        wanted.extend([(MIB, "zero"), (MIB, "data"), (4096, "below")]);
        assert_eq!(runs(image.as_ref()), wanted);
        let info = image.info().unwrap();
        assert_eq!(info.backing_file.as_deref(), Some("./parent.vhdx"));
        assert_eq!(info.backing_format.as_deref(), Some("vhdx"));
    }
}

#[test]
fn a_child_is_written_without_its_parent_changing() {
    for sector in [512, 4096] {
        let (dir, mut model) = family(sector);
        let parent = super::bytes_of(dir.file("./parent.vhdx").as_ref());
        let image = open(&dir, true);
        for at in [100, MIB + 20_000, 2 * MIB - 50, 3 * MIB + 77, 5 * MIB] {
            image.writer().unwrap().write_at(&[5; 700], at).unwrap();
            model.write(&[5; 700], at);
        }
        image.writer().unwrap().write_zeroes_at(MIB + 500..MIB + 9000).unwrap();
        model.zero(MIB + 500..MIB + 9000);
        model.assert_same(image.as_ref(), "written");
        // What the guest gave back must not come up from below.
        image.writer().unwrap().discard_at(0..MIB).unwrap();
        model.zero(0..MIB);
        image.close().unwrap();
        model.assert_same(open(&dir, false).as_ref(), "closed");
        assert!(super::bytes_of(dir.file("./parent.vhdx").as_ref()) == parent);
    }
}

#[test]
fn places_of_blocks_that_moved_are_used_again() {
    let (dir, _) = family(512);
    let len = || dir.file("disk").len_bytes().unwrap();
    let before = len();
    let image = open(&dir, true);
    let writer = image.writer().unwrap();
    // Two blocks that are there in part move, one after the other, into one place.
    for block in [1, 2] {
        // A sector that is not there: the others are written where they are.
        writer.write_at(&[1; 512], block * MIB + 4096).unwrap();
        writer.flush().unwrap();
    }
    assert_eq!(len(), before + MIB);
    writer.write_zeroes_at(MIB..2 * MIB).unwrap();
    writer.flush().unwrap();
    writer.write_at(&[1; 512], 0).unwrap();
    writer.write_at(&[1; 512], 5 * MIB).unwrap();
    assert_eq!(len(), before + MIB);
    image.close().unwrap();
}

#[test]
fn what_a_child_grows_by_is_zeroes() {
    let (dir, mut model) = family(512);
    let image = open(&dir, true);
    let resize = |size| image.resizer().unwrap().resize(size, Preallocation::Off).unwrap();
    for size in [2 * MIB, MIB + 512, 5 * MIB, 9 * MIB] {
        resize(size);
        model.resize(size);
        model.assert_same(image.as_ref(), &format!("{size}"));
    }
    image.close().unwrap();
    model.assert_same(open(&dir, false).as_ref(), "closed");
}

#[test]
fn an_emptied_child_is_its_parent() {
    let (dir, _) = family(512);
    let image = open(&dir, true);
    image.overlay().unwrap().make_empty().unwrap();
    assert_eq!(runs(image.as_ref()), [(5 * MIB + 4096, "below")]);
    image.close().unwrap();
    let image = open(&dir, false);
    assert_eq!(read(image.as_ref(), MIB, 1 << 20), [8; 1 << 20]);
    assert_eq!(read(image.as_ref(), 2 * MIB, 1 << 20), [0; 1 << 20]);
}

#[test]
fn a_child_knows_the_parent_that_its_data_went_into() {
    struct Writable<'a>(&'a MemoryDir);

    impl DependencyGate for Writable<'_> {
        fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
            self.0.open_file(wanted)
        }

        fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
            Ok(Some(Arc::from(self.0.open(wanted.name, "vhdx", true)?)))
        }
    }

    let (dir, mut model) = family(512);
    let how = OpenOptions {
        writable: true,
        inspect_only: false,
        limits: Limits::default(),
        gate: &Writable(&dir),
        options: RawOptions::NONE,
    };
    let child = super::DRIVERS[0].open(dir.file("disk"), &how).unwrap();
    // What a commit does: the parent gets the data, and then the child loses them.
    let all = read(child.as_ref(), 0, usize::try_from(child.size_bytes()).unwrap());
    let parent = child.backing().unwrap().writer().unwrap();
    parent.write_at(&all, 0).unwrap();
    parent.finish().unwrap();
    child.overlay().unwrap().make_empty().unwrap();
    child.close().unwrap();

    let child = open(&dir, true);
    model.assert_same(child.as_ref(), "committed");
    assert_eq!(runs(child.as_ref()), [(5 * MIB + 4096, "below")]);
    child.writer().unwrap().write_at(&[4; 10], 0).unwrap();
    model.write(&[4; 10], 0);
    child.close().unwrap();
    model.assert_same(open(&dir, false).as_ref(), "written again");
}

#[test]
fn a_parent_that_changed_is_refused() {
    let (dir, _) = family(512);
    let parent = dir.open("./parent.vhdx", "vhdx", true).unwrap();
    parent.writer().unwrap().write_at(&[1], 0).unwrap();
    parent.close().unwrap();
    let error = words(dir.open("disk", "vhdx", false));
    assert!(error.starts_with("vhdx image is corrupt: parent locator, parent_linkage"), "{error}");
    assert!(error.ends_with("one of them changed"), "{error}");
}

#[test]
fn a_child_without_a_name_for_its_parent_is_refused() {
    let dir = folder();
    let mut child = VhdxImage::new(MIB).over([1; 16], "x");
    if let Some(pairs) = &mut child.parent {
        pairs.remove(0);
    }
    put(&dir, "disk", &child.build());
    let error = words(dir.open("disk", "vhdx", false));
    assert!(error.ends_with("the key 'relative_path' is missing"), "{error}");
    let child = VhdxImage::new(MIB).over([1; 16], "gone");
    put(&dir, "disk", &child.build());
    let error = words(open_carefully(&dir));
    assert!(error.ends_with("gone"), "{error}");
}

#[test]
fn the_next_path_is_tried_where_one_leads_nowhere() {
    let dir = folder();
    let mut parent = VhdxImage::new(MIB);
    parent.blocks.insert(0, Block::Full(vec![3; 9]));
    put(&dir, "C:/disks/parent.vhdx", &parent.build());
    let mut child = VhdxImage::new(MIB).over(parent.data_write_guid, "gone");
    let path = ("absolute_win32_path".to_owned(), r"C:\disks\parent.vhdx".to_owned());
    child.parent.as_mut().unwrap().push(path);
    put(&dir, "disk", &child.build());
    let image = open_carefully(&dir).unwrap();
    assert_eq!(read(image.as_ref(), 0, 10), [3, 3, 3, 3, 3, 3, 3, 3, 3, 0]);
}

/// Opens a child with a gate that has an error, not a panic, for names that lead nowhere.
fn open_carefully(dir: &MemoryDir) -> Result<Box<dyn BlockImage>> {
    struct Careful<'a>(&'a MemoryDir);

    impl DependencyGate for Careful<'_> {
        fn open_file(&self, wanted: &Dependency<'_>) -> Result<Arc<dyn Storage>> {
            self.0.open_file(wanted)
        }

        fn open_image(&self, wanted: &Dependency<'_>) -> Result<Option<Arc<dyn BlockImage>>> {
            self.0.open_file(wanted)?;
            self.0.open_image(wanted)
        }
    }

    let how = OpenOptions {
        writable: false,
        inspect_only: false,
        limits: Limits::default(),
        gate: &Careful(dir),
        options: RawOptions::NONE,
    };
    super::DRIVERS[0].open(dir.file("disk"), &how)
}

#[test]
fn a_partial_block_without_a_bitmap_is_refused() {
    let mut image = VhdxImage::new(MIB);
    image.blocks.insert(0, Block::Partial(vec![], Vec::new()));
    let dir = folder();
    put(&dir, "disk", &image.build());
    let error = words(dir.open("disk", "vhdx", false));
    let kind = "a block that is present in part needs a parent and a sector bitmap";
    let at = "block allocation table, entry at offset 0x300000";
    assert_eq!(error, format!("vhdx image is corrupt: {at}: {kind}"));
}

#[test]
fn an_extent_below_is_read_from_the_parent() {
    let (dir, _) = family(512);
    let image = open(&dir, false);
    let extent = image.extent_at(0..MIB).unwrap();
    assert_eq!(extent.kind, ExtentKind::Backing { allocation: None });
    let parent: &dyn BlockImage = image.backing().unwrap().as_ref();
    assert_eq!(read(parent, 0, 512), read(image.as_ref(), 0, 512));
}
