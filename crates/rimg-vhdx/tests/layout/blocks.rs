//! Every state of a block, in both sector sizes and several block sizes.

use super::{MIB, folder, open, put, read, runs};
use rimg_core::ExtentKind;
use rimg_testkit::vhdx::{Block, VhdxImage};
use rimg_testkit::{MemoryDir, ModelDisk};

fn every_state(block_bytes: u32, sector_bytes: u32) -> (MemoryDir, ModelDisk) {
    let block = u64::from(block_bytes);
    let size = 6 * block + u64::from(sector_bytes);
    let mut image = VhdxImage { block_bytes, sector_bytes, ..VhdxImage::new(size) };
    let data = vec![7; 10_000];
    image.blocks.insert(0, Block::Full(data.clone()));
    image.blocks.insert(1, Block::Undefined);
    image.blocks.insert(2, Block::Zero);
    image.blocks.insert(3, Block::Unmapped(vec![9; 4096]));
    image.blocks.insert(5, Block::Full(data.clone()));
    image.blocks.insert(6, Block::Full(vec![8; 512]));
    let dir = folder();
    put(&dir, "disk", &image.build());
    let mut model = ModelDisk::new(size);
    model.write(&data, 0);
    model.write(&data, 5 * block);
    model.write(&[8; 512], 6 * block);
    (dir, model)
}

#[test]
fn every_state_reads_as_it_should() {
    for (block, sector) in [(1 << 20, 512), (1 << 20, 4096), (8 << 20, 512), (32 << 20, 4096)] {
        let (dir, model) = every_state(block, sector);
        let image = open(&dir, false);
        let what = format!("blocks of {block}, sectors of {sector}");
        model.assert_same(image.as_ref(), &what);
        let block = u64::from(block);
        let wanted = [
            (block, "data"),
            (2 * block, "zero"),
            (block, "zero with place"),
            (block, "below"),
            (block + u64::from(sector), "data"),
        ];
        assert_eq!(runs(image.as_ref()), wanted, "{what}");
        let first = image.extent_at(5..6).unwrap();
        let ExtentKind::Data(place) = first.kind else { panic!("{first:?}") };
        assert_eq!(read(image.as_ref(), 5, 1), {
            let mut byte = [0];
            image.file(0).unwrap().read_exact_at(&mut byte, place.host.0).unwrap();
            byte
        });
    }
}

#[test]
fn every_state_is_written() {
    for (block, sector) in [(1 << 20, 512), (1 << 20, 4096), (2 << 20, 512)] {
        let (dir, mut model) = every_state(block, sector);
        let image = open(&dir, true);
        for n in 0..7_u8 {
            let at = u64::from(n) * u64::from(block) + 8;
            image.writer().unwrap().write_at(&[n + 20; 100], at).unwrap();
            model.write(&[n + 20; 100], at);
        }
        image.close().unwrap();
        model.assert_same(open(&dir, false).as_ref(), "written");
    }
}

#[test]
fn blocks_of_many_chunks_have_their_own_entries() {
    // A chunk has 4 GiB in sectors of 512 bytes, and 32 GiB in sectors of 4096.
    for (sector_bytes, chunk) in [(512, 4096), (4096, 32_768)] {
        let size = 2 * chunk * MIB + 3 * MIB;
        let mut image = VhdxImage { sector_bytes, ..VhdxImage::new(size) };
        let blocks = [0, chunk - 1, chunk, 2 * chunk - 1, 2 * chunk, 2 * chunk + 2];
        for (block, byte) in blocks.into_iter().zip(1..) {
            image.blocks.insert(block, Block::Full(vec![byte; 512]));
        }
        let dir = folder();
        put(&dir, "disk", &image.build());
        let image = open(&dir, true);
        let writer = image.writer().unwrap();
        for (block, byte) in blocks.into_iter().zip(1..) {
            assert_eq!(read(image.as_ref(), block * MIB, 512), [byte; 512], "block {block}");
            // Behind it, and in a block that is not there yet.
            writer.write_at(&[byte + 50; 4], block * MIB + 512).unwrap();
            writer
                .write_at(&[byte + 100; 4], (2 * chunk - 10) * MIB + u64::from(byte) * MIB)
                .unwrap();
        }
        image.close().unwrap();
        let image = open(&dir, false);
        for (block, byte) in blocks.into_iter().zip(1..) {
            let wanted = [[byte; 4], [byte + 50; 4]].concat();
            assert_eq!(read(image.as_ref(), block * MIB + 508, 8), wanted, "block {block}");
            let at = (2 * chunk - 10) * MIB + u64::from(byte) * MIB;
            assert_eq!(read(image.as_ref(), at, 4), [byte + 100; 4], "beside block {block}");
        }
    }
}
