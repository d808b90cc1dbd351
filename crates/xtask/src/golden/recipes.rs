//! Every image of `testdata/`, and how it comes to be.

use super::seeds;

/// A file, and the commands that make it: run by `sh` in the file's folder, in the table's order.
pub(super) struct Recipe {
    /// Path below `testdata/`.
    pub(super) file: &'static str,
    pub(super) format: &'static str,
    pub(super) about: &'static str,
    pub(super) commands: &'static [&'static str],
    pub(super) expect: Expect,
}

/// What a reader makes of it.
#[derive(Clone, Copy)]
pub(super) enum Expect {
    /// Reads; qemu-img tells what the guest sees now and in the internal snapshots named.
    Guest { snapshots: &'static [&'static str] },
    /// Reads with this passphrase, as `encrypt.key-secret` (luks: `key-secret`); qemu-img tells what the guest sees.
    Encrypted { passphrase: &'static str },
    /// Must be refused with this variant of `rimg_core::Error`, some message of whose chain has
    /// `says` in it.
    Refused { error: &'static str, says: &'static str },
    /// Belongs to another image.
    Companion,
}

const GUEST: Expect = Expect::Guest { snapshots: &[] };

pub(super) fn is_companion(file: &str) -> bool {
    let recipe = RECIPES.iter().find(|recipe| recipe.file == file);
    recipe.is_some_and(|recipe| matches!(recipe.expect, Expect::Companion))
}

const fn qcow2(
    file: &'static str,
    about: &'static str,
    commands: &'static [&'static str],
    expect: Expect,
) -> Recipe {
    Recipe { file, format: "qcow2", about, commands, expect }
}

const fn vdi(file: &'static str, about: &'static str, commands: &'static [&'static str]) -> Recipe {
    Recipe { file, format: "vdi", about, commands, expect: GUEST }
}

const fn vpc(file: &'static str, about: &'static str, commands: &'static [&'static str]) -> Recipe {
    Recipe { file, format: "vpc", about, commands, expect: GUEST }
}

/// Gives a VDI the UUIDs that it has each time: QEMU makes them up.
macro_rules! vdi_uuids {
    ($file:literal) => {
        concat!(
            "printf 'rimg-golden-uuidrimg-golden-uuid' | dd of=",
            $file,
            " bs=1 seek=392 conv=notrunc status=none"
        )
    };
}

/// Gives the footers of a VHD at these offsets the time and UUID that they have each time, and the
/// right checksum again.
macro_rules! vhd_footers {
    ($file:literal, $offsets:literal) => {
        concat!(
            r#"perl -e 'open F,"+<",shift; for $o (@ARGV) {seek F,$o,$o<0?2:0; read F,$b,512; "#,
            r#"substr($b,24,4)="\0\0\0\7"; substr($b,68,16)="rimg-golden-uuid"; "#,
            r#"substr($b,64,4)="\0"x4; substr($b,64,4)=pack("N",~unpack("%32C*",$b)&0xffffffff); "#,
            r#"seek F,$o,$o<0?2:0; print F $b}' "#,
            $file,
            " ",
            $offsets
        )
    };
}

const fn vmdk(
    file: &'static str,
    about: &'static str,
    commands: &'static [&'static str],
    expect: Expect,
) -> Recipe {
    Recipe { file, format: "vmdk", about, commands, expect }
}

const fn other(
    file: &'static str,
    format: &'static str,
    about: &'static str,
    commands: &'static [&'static str],
    expect: Expect,
) -> Recipe {
    Recipe { file, format, about, commands, expect }
}

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        file: "raw/ext4.raw",
        format: "raw",
        about: "a small ext4 file system of texts",
        commands: seeds::RAW_COMMANDS,
        expect: GUEST,
    },
    Recipe {
        file: "raw/odd-size.raw",
        format: "raw",
        about: "a size that is no multiple of a sector",
        commands: &["head -c 100001 ext4.raw > odd-size.raw"],
        expect: GUEST,
    },
    qcow2(
        "qcow2/ext4-zlib.qcow2",
        "an ext4 file system of real files, every cluster compressed with zlib",
        seeds::ZLIB_COMMANDS,
        GUEST,
    ),
    qcow2(
        "qcow2/ext4-zstd.qcow2",
        "the same, compressed with zstd",
        &["qemu-img convert -c -O qcow2 -o compression_type=zstd ext4-zlib.qcow2 ext4-zstd.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/ext4-zlib-v2.qcow2",
        "the same, version 2 of the format",
        &["qemu-img convert -c -O qcow2 -o compat=0.10 ext4-zlib.qcow2 ext4-zlib-v2.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/v2.qcow2",
        "version 2: 72 bytes of header, no features",
        &["qemu-img convert -f raw -O qcow2 -o compat=0.10 ../raw/ext4.raw v2.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/v3.qcow2",
        "version 3 with the default options",
        &["qemu-img convert -f raw -O qcow2 ../raw/ext4.raw v3.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/empty.qcow2",
        "nothing allocated",
        &["qemu-img create -q -f qcow2 empty.qcow2 4M"],
        GUEST,
    ),
    qcow2(
        "qcow2/odd-size.qcow2",
        "a last cluster that is not whole",
        &["qemu-img convert -f raw -O qcow2 ../raw/odd-size.raw odd-size.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/cluster-512.qcow2",
        "the smallest clusters",
        &["qemu-img convert -f raw -O qcow2 -o cluster_size=512 ../raw/ext4.raw cluster-512.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/cluster-2m.qcow2",
        "the largest clusters, compressed",
        &[
            "qemu-img convert -c -f raw -O qcow2 -o cluster_size=2M ../raw/ext4.raw cluster-2m.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/refcount-1.qcow2",
        "refcounts of one bit, eight to a byte",
        &["qemu-img convert -f raw -O qcow2 -o refcount_bits=1 ../raw/ext4.raw refcount-1.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/refcount-64.qcow2",
        "the widest refcounts",
        &["qemu-img convert -f raw -O qcow2 -o refcount_bits=64 ../raw/ext4.raw refcount-64.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/extended-l2.qcow2",
        "subclusters: allocated, zero and neither within one cluster",
        &[
            "qemu-img convert -f raw -O qcow2 -o extended_l2=on,cluster_size=64k ../raw/ext4.raw extended-l2.qcow2",
            "qemu-io -f qcow2 -c 'write -z 66k 6k' -c 'write -P 0x5a 900k 3k' -c 'discard 128k 16k' extended-l2.qcow2",
            "qemu-img resize -q extended-l2.qcow2 2M",
            "qemu-io -f qcow2 -c 'write -P 0xa5 1030k 4k' -c 'write -P 0xa6 1082k 2k' extended-l2.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/zero-clusters.qcow2",
        "zero clusters that keep their place and such that do not, and discarded ones",
        &[
            "qemu-img convert -f raw -O qcow2 ../raw/ext4.raw zero-clusters.qcow2",
            "qemu-io -f qcow2 -c 'write -z 0 64k' -c 'write -zu 64k 64k' -c 'discard 128k 64k' -c 'write -z 512k 64k' zero-clusters.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/compressed-rewritten.qcow2",
        "compressed clusters among rewritten ones",
        &[
            "qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k ../raw/ext4.raw compressed-rewritten.qcow2",
            "qemu-io -f qcow2 -c 'write -P 0x11 0 1k' -c 'write -P 0x22 10k 20k' -c 'write -P 0x33 900k 512' compressed-rewritten.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/preallocation-metadata.qcow2",
        "every cluster mapped, the file ending after them",
        &[
            "qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=4k preallocation-metadata.qcow2 512k",
            "qemu-io -f qcow2 -c 'write -P 0x77 100k 9k' preallocation-metadata.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/snapshots.qcow2",
        "two internal snapshots, the disk changed after each",
        &[
            "qemu-img convert -f raw -O qcow2 -o cluster_size=4k ../raw/ext4.raw snapshots.qcow2",
            "qemu-img snapshot -c first snapshots.qcow2",
            "qemu-io -f qcow2 -c 'write -P 0x41 0 40k' -c 'write -P 0x42 700k 8k' snapshots.qcow2",
            "qemu-img snapshot -c second snapshots.qcow2",
            "qemu-io -f qcow2 -c 'write -z 0 20k' -c 'write -P 0x43 1020k 4k' snapshots.qcow2",
        ],
        Expect::Guest { snapshots: &["first", "second"] },
    ),
    qcow2(
        "qcow2/bitmap.qcow2",
        "a persistent dirty bitmap that covers two writes",
        &[
            "qemu-img create -q -f qcow2 bitmap.qcow2 4M",
            "qemu-img bitmap --add -g 64k bitmap.qcow2 changed",
            "qemu-io -f qcow2 -c 'write -P 0x61 0 64k' -c 'write -P 0x62 2M 4k' bitmap.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/bitmaps.qcow2",
        "a bitmap left in use, one that is disabled, one of sectors, one full, and one empty",
        &[
            "qemu-img create -q -f qcow2 -o cluster_size=4k bitmaps.qcow2 64M",
            "qemu-img bitmap --add bitmaps.qcow2 left",
            "qemu-io -f qcow2 -c 'write -P 0x61 0 4k' -c flush -c abort bitmaps.qcow2 || true",
            "qemu-img bitmap --add -g 2M bitmaps.qcow2 stopped",
            "qemu-img bitmap --add -g 512 bitmaps.qcow2 sectors",
            "qemu-io -f qcow2 -c 'write -P 0x62 5M 512' -c 'write -P 0x63 63M 9k' bitmaps.qcow2",
            "qemu-img bitmap --disable bitmaps.qcow2 stopped",
            "qemu-img bitmap --add bitmaps.qcow2 full",
            "qemu-io -f qcow2 -c 'discard 0 64M' -c 'write -P 0x64 1M 512' bitmaps.qcow2",
            "qemu-img bitmap --clear bitmaps.qcow2 sectors",
            "qemu-io -f qcow2 -c 'write -P 0x65 1537k 512' bitmaps.qcow2",
            "qemu-img bitmap --add bitmaps.qcow2 empty",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/base.qcow2",
        "the bottom of the backing chains",
        &["qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k ../raw/ext4.raw base.qcow2"],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay.qcow2",
        "over base.qcow2, whose format it names",
        &[
            "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 overlay.qcow2",
            "qemu-io -f qcow2 -c 'write -P 0x51 6k 1k' -c 'write -z 100k 30k' overlay.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay-of-overlay.qcow2",
        "a chain of three, its top longer than what is below",
        &[
            "qemu-img create -q -f qcow2 -o cluster_size=64k -b overlay.qcow2 -F qcow2 overlay-of-overlay.qcow2 1300k",
            "qemu-io -f qcow2 -c 'write -P 0x52 100k 5k' -c 'write -P 0x53 1020k 10k' overlay-of-overlay.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay-shorter.qcow2",
        "ends before its backing file does",
        &[
            "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 overlay-shorter.qcow2 300k",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay-raw.qcow2",
        "over a raw image in another folder",
        &[
            "qemu-img create -q -f qcow2 -o cluster_size=4k -b ../raw/ext4.raw -F raw overlay-raw.qcow2",
            "qemu-io -f qcow2 -c 'write -P 0x54 8k 4k' overlay-raw.qcow2",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay-no-format.qcow2",
        "does not say in which format its backing file is: the extension's type is unknown",
        &[
            "cp overlay.qcow2 overlay-no-format.qcow2",
            // The first header extension, at byte 112 (0x70), is the backing format's.
            "printf '\\122\\111\\115\\107' | dd of=overlay-no-format.qcow2 bs=1 seek=112 conv=notrunc status=none",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/overlay-json.qcow2",
        "names its backing file by a json: string, which a header must not do",
        &[
            "qemu-img create -q -f qcow2 -u -b 'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"../raw/ext4.raw\"}}' -F raw overlay-json.qcow2 1M",
        ],
        Expect::Refused { error: "Dependency", says: "json:" },
    ),
    qcow2(
        "qcow2/data-file.qcow2",
        "guest data in another file, at any offset",
        &[
            "qemu-img create -q -f qcow2 -o data_file=data-file.data,cluster_size=4k data-file.qcow2 1M",
            "qemu-io -f qcow2 -c 'write -P 0x71 500k 9k' -c 'write -P 0x72 0 4k' data-file.qcow2",
        ],
        GUEST,
    ),
    qcow2("qcow2/data-file.data", "the data of data-file.qcow2", &[], Expect::Companion),
    qcow2(
        "qcow2/data-file-raw.qcow2",
        "guest data in another file that is the raw disk",
        &[
            "qemu-img create -q -f qcow2 -o data_file=data-file-raw.data,data_file_raw=on,cluster_size=4k data-file-raw.qcow2 256k",
            "qemu-io -f qcow2 -c 'write -P 0x73 50k 9k' -c 'write -z 52k 4k' data-file-raw.qcow2",
        ],
        GUEST,
    ),
    qcow2("qcow2/data-file-raw.data", "the data of data-file-raw.qcow2", &[], Expect::Companion),
    qcow2(
        "qcow2/dirty.qcow2",
        "the writer died: refcounts are not to be trusted, the data are",
        &[
            "qemu-img create -q -f qcow2 -o lazy_refcounts=on dirty.qcow2 4M",
            "qemu-io -f qcow2 -c 'write -P 0x31 0 64k' -c 'write -P 0x32 1M 70k' -c flush -c abort dirty.qcow2 || true",
            "qemu-img check -f qcow2 -U dirty.qcow2 > check.txt 2>&1 || true; grep -q 'were found' check.txt; rm check.txt",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/corrupt-bit.qcow2",
        "marked corrupt: readable, never writable",
        &[
            "cp v3.qcow2 corrupt-bit.qcow2",
            // Incompatible feature bit 1, of the big-endian word at byte 72.
            "printf '\\002' | dd of=corrupt-bit.qcow2 bs=1 seek=79 conv=notrunc status=none",
        ],
        GUEST,
    ),
    qcow2(
        "qcow2/unknown-feature.qcow2",
        "needs an incompatible feature that only its own feature-name table knows",
        &[
            "cp empty.qcow2 unknown-feature.qcow2",
            // Incompatible feature bit 10; the table's first entry (type, bit, name) at byte 120.
            "printf '\\004' | dd of=unknown-feature.qcow2 bs=1 seek=78 conv=notrunc status=none",
            "printf '\\000\\012time travel\\000\\000' | dd of=unknown-feature.qcow2 bs=1 seek=120 conv=notrunc status=none",
        ],
        Expect::Refused { error: "Unsupported", says: "time travel" },
    ),
    qcow2(
        "qcow2/luks.qcow2",
        "encrypted with LUKS, passphrase \"golden\"",
        &[
            "qemu-img create -q -f qcow2 --object secret,id=s,data=golden -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,cluster_size=4k luks.qcow2 64k",
            "qemu-io --object secret,id=s,data=golden --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2 -c 'write -P 0x21 0 8k'",
        ],
        Expect::Encrypted { passphrase: "golden" },
    ),
    qcow2(
        "qcow2/aes.qcow2",
        "encrypted with the old AES method, whose key is the passphrase \"golden\"",
        &[
            "qemu-img create -q -f qcow2 --object secret,id=s,data=golden -o encrypt.format=aes,encrypt.key-secret=s,cluster_size=4k aes.qcow2 64k",
            "qemu-io --object secret,id=s,data=golden --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=aes.qcow2 -c 'write -P 0x22 0 8k' -c 'write -P 0x23 40k 512'",
        ],
        Expect::Encrypted { passphrase: "golden" },
    ),
    vdi(
        "vdi/dynamic.vdi",
        "blocks of 1 MiB, taken when they are written",
        &["qemu-img convert -f raw -O vdi ../raw/ext4.raw dynamic.vdi", vdi_uuids!("dynamic.vdi")],
    ),
    vdi(
        "vdi/static.vdi",
        "every block has its place",
        &[
            "qemu-img convert -f raw -O vdi -o static=on ../raw/odd-size.raw static.vdi",
            vdi_uuids!("static.vdi"),
        ],
    ),
    vdi(
        "vdi/empty.vdi",
        "no blocks",
        &["qemu-img create -q -f vdi empty.vdi 4M", vdi_uuids!("empty.vdi")],
    ),
    vdi(
        "vdi/gaps.vdi",
        "blocks out of order, and a disk that ends within one",
        &[
            "qemu-img create -q -f vdi gaps.vdi 3500k",
            "qemu-io -f vdi -c 'write -P 0x41 3300k 2k' -c 'write -P 0x42 1000k 3k' gaps.vdi",
            vdi_uuids!("gaps.vdi"),
        ],
    ),
    vpc(
        "vpc/dynamic.vpc",
        "a block of 2 MiB, the size of a geometry",
        &[
            "qemu-img convert -f raw -O vpc ../raw/ext4.raw dynamic.vpc",
            vhd_footers!("dynamic.vpc", "0 -512"),
        ],
    ),
    vpc(
        "vpc/force-size.vpc",
        "the size in the footer counts",
        &[
            "qemu-img create -q -f vpc -o force_size=on force-size.vpc 5M",
            "qemu-io -f vpc -c 'write -P 0x43 3M 5k' force-size.vpc",
            vhd_footers!("force-size.vpc", "0 -512"),
        ],
    ),
    vpc(
        "vpc/empty.vpc",
        "no blocks",
        &["qemu-img create -q -f vpc empty.vpc 4M", vhd_footers!("empty.vpc", "0 -512")],
    ),
    vpc(
        "vpc/fixed.vpc",
        "of fixed size, that of a geometry",
        &[
            "qemu-img convert -f raw -O vpc -o subformat=fixed ../raw/odd-size.raw fixed.vpc",
            vhd_footers!("fixed.vpc", "-512"),
        ],
    ),
    vpc(
        "vpc/fixed-force-size.vpc",
        "of fixed size, as Azure wants it",
        &[
            "qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on ../raw/ext4.raw fixed-force-size.vpc",
            vhd_footers!("fixed-force-size.vpc", "-512"),
        ],
    ),
    Recipe {
        file: "vhdx/dynamic.vhdx",
        format: "vhdx",
        about: "a block of 1 MiB",
        commands: &[
            "qemu-img convert -f raw -O vhdx -o block_size=1M ../raw/ext4.raw dynamic.vhdx",
        ],
        expect: GUEST,
    },
    Recipe {
        file: "vhdx/fixed.vhdx",
        format: "vhdx",
        about: "fixed, its last block cut off where the disk ends",
        commands: &[
            "qemu-img convert -f raw -O vhdx -o subformat=fixed,block_state_zero=off ../raw/odd-size.raw fixed.vhdx",
        ],
        expect: GUEST,
    },
    Recipe {
        file: "vhdx/written.vhdx",
        format: "vhdx",
        about: "blocks in no order, zero blocks and such that are not present, no second header",
        commands: &[
            "qemu-img create -q -f vhdx -o block_size=1M written.vhdx 9000k",
            "qemu-io -f vhdx -c 'write -P 0x41 8M 100k' -c 'write -P 0x42 3000k 100k' written.vhdx",
            "dd if=/dev/zero of=written.vhdx bs=4k seek=32 count=1 conv=notrunc status=none",
        ],
        expect: GUEST,
    },
    vmdk(
        "vmdk/sparse.vmdk",
        "monolithicSparse, the default",
        &[
            "qemu-img convert -f raw -O vmdk ../raw/odd-size.raw sparse.vmdk",
            "printf 12345678 | dd of=sparse.vmdk bs=1 seek=548 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk(
        "vmdk/zeroed-grain.vmdk",
        "version 2: a grain of zeroes between data and nothing",
        &[
            "qemu-img create -q -f vmdk -o zeroed_grain=on zeroed-grain.vmdk 4M",
            "qemu-io -f vmdk -c 'write -P 0x41 1M 128k' -c 'write -z 1M 64k' -c 'write -z 2M 64k' zeroed-grain.vmdk",
            "printf 12345678 | dd of=zeroed-grain.vmdk bs=1 seek=548 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk(
        "vmdk/stream-qemu.vmdk",
        "streamOptimized as QEMU writes it: the directory in front, no footer",
        &[
            "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized ../raw/ext4.raw stream-qemu.vmdk",
            "printf 12345678 | dd of=stream-qemu.vmdk bs=1 seek=548 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk(
        "vmdk/flat.vmdk",
        "monolithicFlat: a descriptor and the disk",
        &[
            "qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat ../raw/odd-size.raw flat.vmdk",
            "printf 12345678 | dd of=flat.vmdk bs=1 seek=36 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk("vmdk/flat-flat.vmdk", "the disk of flat.vmdk", &[], Expect::Companion),
    vmdk(
        "vmdk/split.vmdk",
        "twoGbMaxExtentSparse: a descriptor and an extent",
        &[
            "qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse ../raw/odd-size.raw split.vmdk",
            "printf 12345678 | dd of=split.vmdk bs=1 seek=36 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk("vmdk/split-s001.vmdk", "the extent of split.vmdk", &[], Expect::Companion),
    vmdk(
        "vmdk/overlay.vmdk",
        "an overlay that is longer than its parent",
        &[
            "qemu-img create -q -f vmdk -b sparse.vmdk -F vmdk overlay.vmdk 1M",
            "qemu-io -f vmdk -c 'write -P 0x42 60k 8k' -c 'write -P 0x43 900k 1k' overlay.vmdk",
            "printf 12345678 | dd of=overlay.vmdk bs=1 seek=548 conv=notrunc status=none",
        ],
        GUEST,
    ),
    vmdk(
        "vmdk/version-4.vmdk",
        "a version that is not known",
        &[
            "head -c 1024 sparse.vmdk > version-4.vmdk",
            "printf '\\004' | dd of=version-4.vmdk bs=1 seek=4 conv=notrunc status=none",
        ],
        Expect::Refused { error: "Corrupt", says: "version 0x4 is unknown" },
    ),
    vmdk(
        "vmdk/truncated.vmdk",
        "a download that ended too early",
        &["cp sparse.vmdk truncated.vmdk", "truncate -s 40000 truncated.vmdk"],
        Expect::Refused { error: "Corrupt", says: "truncated, expecting at least 65536 bytes" },
    ),
    Recipe {
        file: "luks/cbc-essiv.luks",
        format: "luks",
        about: "AES-128-CBC with ESSIV and a last sector that is not whole, passphrase \"golden\"",
        commands: &[
            "qemu-img create -q -f luks --object secret,id=s,data=golden -o key-secret=s,iter-time=10,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv cbc-essiv.luks 5000",
            "qemu-io --object secret,id=s,data=golden --image-opts driver=luks,key-secret=s,file.filename=cbc-essiv.luks -c 'write -P 0x24 0 4k' -c 'write -P 0x25 4k 1k'",
        ],
        expect: Expect::Encrypted { passphrase: "golden" },
    },
    other(
        "parallels/small.parallels",
        "parallels",
        "clusters of 4 KiB, some of them, out of order",
        &[
            "qemu-img create -q -f parallels -o cluster_size=4k small.parallels 256k",
            "qemu-io -f parallels -c 'write -P 1 128k 5000' -c 'write -P 2 0 100' small.parallels",
        ],
        GUEST,
    ),
    other(
        "parallels/sectors.parallels",
        "parallels",
        "BAT entries that count sectors, clusters of 63 sectors, never closed",
        &[
            "printf 'WithoutFreeSpace\\2\\0\\0\\0\\20\\0\\0\\0\\2\\0\\0\\0\\77\\0\\0\\0\\3\\0\\0\\0\\275\\0\\0\\0\\0\\0\\0\\0Ynot\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\100\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0' > sectors.parallels",
            "truncate -s 65024 sectors.parallels",
            "printf 'first' | dd of=sectors.parallels bs=1 seek=32768 conv=notrunc status=none",
            "printf 'third' | dd of=sectors.parallels bs=1 seek=600 conv=notrunc status=none",
        ],
        GUEST,
    ),
    other(
        "parallels/no-clusters.parallels",
        "parallels",
        "clusters of no sectors",
        &[
            "cp small.parallels no-clusters.parallels",
            "printf '\\0' | dd of=no-clusters.parallels bs=1 seek=28 conv=notrunc status=none",
        ],
        Expect::Refused { error: "Corrupt", says: "clusters of 0 sectors" },
    ),
    other(
        "qcow/small.qcow",
        "qcow",
        "two L2 tables, clusters out of order",
        &[
            "qemu-img create -q -f qcow small.qcow 4M",
            "qemu-io -f qcow -c 'write -P 1 3M 5000' -c 'write -P 2 0 100' small.qcow",
        ],
        GUEST,
    ),
    other(
        "qcow/compressed.qcow",
        "qcow",
        "compressed clusters, one of which was written to, and a disk that ends within a cluster",
        &[
            // It always ends with an error, when all is done.
            "qemu-img convert -c -f raw -O qcow ../raw/odd-size.raw compressed.qcow || test -s compressed.qcow",
            "qemu-io -f qcow -c 'write -P 1 5000 10' compressed.qcow",
        ],
        GUEST,
    ),
    other(
        "qcow/base.raw",
        "qcow",
        "below the overlay",
        &[
            "qemu-img create -q -f raw base.raw 20k",
            "qemu-io -f raw -c 'write -P 9 0 20k' base.raw",
        ],
        Expect::Companion,
    ),
    other(
        "qcow/overlay.qcow",
        "qcow",
        "clusters of 512 bytes over a shorter image",
        &[
            "qemu-img create -q -f qcow -b base.raw -F raw overlay.qcow 64k",
            "qemu-io -f qcow -c 'write -P 1 1000 100' -c 'write -P 2 20k 700' overlay.qcow",
        ],
        GUEST,
    ),
    other(
        "qcow/aes.qcow",
        "qcow",
        "encrypted, passphrase \"golden\"",
        &[
            "qemu-img create -q -f qcow --object secret,id=s,data=golden -o encrypt.format=aes,encrypt.key-secret=s aes.qcow 64k",
            "qemu-io --object secret,id=s,data=golden --image-opts driver=qcow,encrypt.key-secret=s,file.filename=aes.qcow -c 'write -P 0x22 0 8k' -c 'write -P 0x23 40k 512'",
        ],
        Expect::Encrypted { passphrase: "golden" },
    ),
    other(
        "qed/small.qed",
        "qed",
        "two L2 tables, zero clusters, clusters out of order",
        &[
            "qemu-img create -q -f qed -o cluster_size=4k,table_size=2 small.qed 8M",
            "qemu-io -f qed -c 'write -P 1 5M 100' -c 'write -P 2 0 5000' -c 'write -z 64k 8k' small.qed",
        ],
        GUEST,
    ),
    other(
        "qed/base.raw",
        "qed",
        "below the overlay",
        &[
            "qemu-img create -q -f raw base.raw 20k",
            "qemu-io -f raw -c 'write -P 9 0 20k' base.raw",
        ],
        Expect::Companion,
    ),
    other(
        "qed/overlay.qed",
        "qed",
        "over a shorter image, part of which is hidden by zeroes",
        &[
            "qemu-img create -q -f qed -b base.raw -F raw -o cluster_size=4k,table_size=2 overlay.qed 64k",
            "qemu-io -f qed -c 'write -P 1 1000 100' -c 'write -z 8k 4k' -c 'write -P 2 20k 700' overlay.qed",
        ],
        GUEST,
    ),
    other(
        "qed/need-check.qed",
        "qed",
        "never closed",
        &[
            "cp small.qed need-check.qed",
            "printf '\\2' | dd of=need-check.qed bs=1 seek=16 conv=notrunc status=none",
        ],
        GUEST,
    ),
    other(
        "qed/unknown-feature.qed",
        "qed",
        "needs a feature that nobody knows",
        &[
            "cp small.qed unknown-feature.qed",
            "printf '\\200' | dd of=unknown-feature.qed bs=1 seek=23 conv=notrunc status=none",
        ],
        Expect::Refused { error: "Unsupported", says: "8000000000000000" },
    ),
];
