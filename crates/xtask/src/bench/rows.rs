//! What is measured, and how much faster rimg shall be.

/// One command, given alike to both programs.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Arguments separated by spaces; run in the data set's folder.
    pub(super) args: &'static str,
    /// Files of the data set that are copied into `out/` before every run, for commands that change
    /// them: source and copy.
    pub(super) copies: &'static [(&'static str, &'static str)],
    /// Flags that make qemu-img faster here, put behind the command's name.
    pub(super) best_flags: Option<&'static str>,
    /// qemu-img's wall clock time / rimg's must reach this.
    pub(super) goal: f64,
    /// The same against the best flags.
    pub(super) best_goal: f64,
    /// qemu-img's peak memory / rimg's must reach this.
    pub(super) memory_goal: f64,
    pub(super) verify: Verify,
    /// Runs that make one sample, for commands too short to time singly.
    pub(super) repeat: u32,
    /// rimg's peak memory must not pass this; qemu-img's own peak is the limit anyway.
    pub(super) peak_limit_kib: Option<f64>,
}

/// How to see that the command did its work.
pub(super) enum Verify {
    /// `out/target` holds what the source holds.
    Target { source: &'static str, source_format: &'static str, format: &'static str },
    /// As [`Verify::Target`], and is at most 3 % larger than qemu-img's.
    CompressedTarget { source: &'static str, source_format: &'static str },
    /// `out/target` is an image under the data set's passphrase, opened with these options, and
    /// holds what the raw source holds.
    EncryptedTarget { source: &'static str, options: &'static str },
    /// `out/target` passes `qemu-img check`.
    Check,
    /// Both print the same.
    Output,
    /// The command succeeds: it prints how long it took.
    Success,
}

/// `out/target`, removed before every run.
pub(super) const TARGET: &str = "out/target";

const CONVERT: Row = Row {
    name: "",
    args: "",
    copies: &[],
    best_flags: Some("-W -m 16"),
    goal: 1.0,
    best_goal: 1.0,
    memory_goal: 1.0,
    verify: to_raw("plain.qcow2"),
    repeat: 1,
    peak_limit_kib: None,
};

const QUERY: Row = Row { best_flags: None, verify: Verify::Output, ..CONVERT };

const SMALL: Row = Row { goal: 3.0, repeat: 20, peak_limit_kib: Some(8192.0), ..QUERY };

/// Half of qemu-img's time and memory, whatever the format.
const INFO: Row = Row { goal: 2.0, memory_goal: 2.0, ..SMALL };

const CHANGE: Row = Row { verify: Verify::Check, goal: 2.0, ..QUERY };

const SNAPSHOTS: &[(&str, &str)] = &[("fragmented.qcow2", TARGET)];

const CHAIN: &[(&str, &str)] = &[
    ("plain.qcow2", "out/plain.qcow2"),
    ("chain-middle.qcow2", "out/chain-middle.qcow2"),
    ("chain-top.qcow2", TARGET),
];

const fn to_raw(source: &'static str) -> Verify {
    Verify::Target { source, source_format: "qcow2", format: "raw" }
}

/// The raw image's contents, in another format.
const fn of_plain(format: &'static str) -> Verify {
    Verify::Target { source: "plain.raw", source_format: "raw", format }
}

const fn compressed(source: &'static str) -> Verify {
    Verify::CompressedTarget { source, source_format: "raw" }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "qcow2 → raw",
        args: "convert -f qcow2 -O raw plain.qcow2 out/target",
        goal: 1.3,
        best_goal: 1.3,
        ..CONVERT
    },
    Row {
        name: "raw → raw",
        args: "convert -f raw -O raw plain.raw out/target",
        goal: 1.3,
        best_goal: 1.3,
        verify: Verify::Target { source: "plain.raw", source_format: "raw", format: "raw" },
        ..CONVERT
    },
    Row {
        name: "raw → qcow2",
        args: "convert -f raw -O qcow2 plain.raw out/target",
        goal: 1.3,
        best_goal: 1.3,
        verify: Verify::Target { source: "plain.raw", source_format: "raw", format: "qcow2" },
        ..CONVERT
    },
    Row {
        name: "zlib qcow2 → raw",
        args: "convert -f qcow2 -O raw zlib.qcow2 out/target",
        goal: 3.0,
        best_goal: 3.0,
        verify: to_raw("zlib.qcow2"),
        ..CONVERT
    },
    Row {
        name: "zstd qcow2 → raw",
        args: "convert -f qcow2 -O raw zstd.qcow2 out/target",
        goal: 2.5,
        best_goal: 2.5,
        verify: to_raw("zstd.qcow2"),
        ..CONVERT
    },
    Row {
        name: "fragmented qcow2 with snapshots → raw",
        args: "convert -f qcow2 -O raw fragmented.qcow2 out/target",
        goal: 2.0,
        best_goal: 2.0,
        verify: to_raw("fragmented.qcow2"),
        ..CONVERT
    },
    Row {
        name: "preallocated qcow2 → raw",
        args: "convert -f qcow2 -O raw set-aside.qcow2 out/target",
        goal: 2.0,
        best_goal: 2.0,
        verify: to_raw("set-aside.qcow2"),
        ..CONVERT
    },
    Row {
        name: "three-deep chain → raw",
        args: "convert -f qcow2 -O raw chain-top.qcow2 out/target",
        goal: 2.5,
        best_goal: 2.5,
        verify: to_raw("chain-top.qcow2"),
        ..CONVERT
    },
    Row {
        name: "raw → qcow2 -c zlib",
        args: "convert -c -f raw -O qcow2 plain.raw out/target",
        best_flags: Some("-W -m 8"),
        goal: 6.0,
        best_goal: 4.0,
        verify: compressed("plain.raw"),
        ..CONVERT
    },
    Row {
        name: "raw → qcow2 -c zstd",
        args: "convert -c -f raw -O qcow2 -o compression_type=zstd plain.raw out/target",
        best_flags: Some("-W -m 8"),
        goal: 2.0,
        best_goal: 2.0,
        verify: compressed("plain.raw"),
        ..CONVERT
    },
    Row {
        name: "incompressible raw → qcow2 -c",
        args: "convert -c -f raw -O qcow2 random.raw out/target",
        best_flags: Some("-W -m 8"),
        goal: 5.0,
        best_goal: 5.0,
        verify: compressed("random.raw"),
        ..CONVERT
    },
    Row {
        name: "zlib qcow2 → zlib qcow2",
        args: "convert -c -f qcow2 -O qcow2 zlib.qcow2 out/target",
        best_flags: Some("-W -m 8"),
        goal: 20.0,
        best_goal: 20.0,
        verify: Verify::CompressedTarget { source: "zlib.qcow2", source_format: "qcow2" },
        ..CONVERT
    },
    Row {
        name: "zstd qcow2 → zstd qcow2",
        args: "convert -c -f qcow2 -O qcow2 -o compression_type=zstd zstd.qcow2 out/target",
        best_flags: Some("-W -m 8"),
        goal: 20.0,
        best_goal: 20.0,
        verify: Verify::CompressedTarget { source: "zstd.qcow2", source_format: "qcow2" },
        ..CONVERT
    },
    Row {
        name: "1 TiB scattered → raw",
        args: "convert -f qcow2 -O raw scattered.qcow2 out/target",
        goal: 8.0,
        best_goal: 8.0,
        verify: to_raw("scattered.qcow2"),
        ..CONVERT
    },
    Row {
        name: "1 TiB scattered → qcow2",
        args: "convert -f qcow2 -O qcow2 scattered.qcow2 out/target",
        goal: 6.0,
        best_goal: 6.0,
        verify: Verify::Target {
            source: "scattered.qcow2",
            source_format: "qcow2",
            format: "qcow2",
        },
        ..CONVERT
    },
    Row {
        name: "map of 1 TiB scattered",
        args: "map --output=json -f qcow2 scattered.qcow2",
        goal: 12.0,
        ..QUERY
    },
    Row {
        name: "measure of 1 TiB scattered",
        args: "measure -f qcow2 -O qcow2 scattered.qcow2",
        goal: 12.0,
        ..QUERY
    },
    Row {
        name: "compare 1 TiB scattered with its copy",
        args: "compare -f qcow2 -F qcow2 scattered.qcow2 scattered-copy.qcow2",
        goal: 5.0,
        ..QUERY
    },
    Row {
        name: "compare raw with qcow2",
        args: "compare -f raw -F qcow2 plain.raw plain.qcow2",
        goal: 2.0,
        ..QUERY
    },
    Row {
        name: "compare raw with zlib qcow2",
        args: "compare -f raw -F qcow2 plain.raw zlib.qcow2",
        goal: 4.0,
        ..QUERY
    },
    Row {
        name: "create 1 TiB, preallocation=metadata",
        args: "create -q -f qcow2 -o preallocation=metadata out/target 1T",
        goal: 4.0,
        verify: Verify::Check,
        ..QUERY
    },
    Row {
        name: "check of a fragmented image",
        args: "check -f qcow2 fragmented.qcow2",
        goal: 5.0,
        ..QUERY
    },
    Row {
        name: "check of fragmented 4 KiB clusters",
        args: "check -f qcow2 fine.qcow2",
        goal: 5.0,
        ..QUERY
    },
    Row {
        name: "check of 1 TiB scattered",
        args: "check -f qcow2 scattered.qcow2",
        goal: 5.0,
        ..QUERY
    },
    Row {
        name: "snapshot -c of a fragmented image",
        args: "snapshot -c new out/target",
        copies: SNAPSHOTS,
        ..CHANGE
    },
    Row {
        name: "snapshot -a of a fragmented image",
        args: "snapshot -a s0 out/target",
        copies: SNAPSHOTS,
        ..CHANGE
    },
    Row {
        name: "snapshot -a of fragmented 4 KiB clusters",
        args: "snapshot -a s0 out/target",
        copies: &[("fine.qcow2", TARGET)],
        ..CHANGE
    },
    Row {
        name: "snapshot -d of a fragmented image",
        args: "snapshot -d s0 out/target",
        copies: SNAPSHOTS,
        ..CHANGE
    },
    Row {
        name: "commit into the layer below",
        args: "commit -q -f qcow2 out/target",
        copies: CHAIN,
        goal: 1.5,
        ..CHANGE
    },
    Row {
        name: "rebase by one layer",
        args: "rebase -q -f qcow2 -b plain.qcow2 -F qcow2 out/target",
        copies: CHAIN,
        goal: 1.5,
        ..CHANGE
    },
    Row {
        name: "4 KiB reads, 16 at a time",
        args: "bench -c 100000 -d 16 -f qcow2 -s 4096 -S 86016 plain.qcow2",
        goal: 1.0,
        verify: Verify::Success,
        ..QUERY
    },
    Row {
        name: "4 KiB writes, 16 at a time",
        args: "bench -w -c 50000 -d 16 -f qcow2 -s 4096 -S 86016 out/target",
        copies: &[("plain.qcow2", TARGET)],
        goal: 1.0,
        ..CHANGE
    },
    Row {
        name: "LUKS qcow2 → raw",
        args: "convert --object secret,id=key,data=swordfish --image-opts -O raw \
               driver=qcow2,encrypt.key-secret=key,file.filename=luks.qcow2 out/target",
        goal: 2.0,
        best_goal: 2.0,
        verify: Verify::Target { source: "plain.raw", source_format: "raw", format: "raw" },
        ..CONVERT
    },
    Row {
        name: "raw → LUKS qcow2",
        args: "convert --object secret,id=key,data=swordfish -f raw -O qcow2 -o \
               encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 plain.raw out/target",
        goal: 2.0,
        best_goal: 2.0,
        verify: Verify::EncryptedTarget {
            source: "plain.raw",
            options: "driver=qcow2,encrypt.key-secret=key",
        },
        ..CONVERT
    },
    Row {
        name: "luks → raw",
        args: "convert --object secret,id=key,data=swordfish --image-opts -O raw \
               driver=luks,key-secret=key,file.filename=dense.luks out/target",
        goal: 3.0,
        best_goal: 1.0,
        verify: Verify::Target { source: "dense.raw", source_format: "raw", format: "raw" },
        ..CONVERT
    },
    Row {
        name: "raw → luks",
        args: "convert --object secret,id=key,data=swordfish -f raw -O luks -o \
               key-secret=key,iter-time=10 dense.raw out/target",
        goal: 5.0,
        best_goal: 1.0,
        verify: Verify::EncryptedTarget {
            source: "dense.raw",
            options: "driver=luks,key-secret=key",
        },
        ..CONVERT
    },
    Row {
        name: "vmdk → raw",
        args: "convert -f vmdk -O raw plain.vmdk out/target",
        goal: 2.5,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → vmdk",
        args: "convert -f raw -O vmdk plain.raw out/target",
        goal: 5.0,
        verify: of_plain("vmdk"),
        ..CONVERT
    },
    Row {
        name: "streamOptimized vmdk → raw",
        args: "convert -f vmdk -O raw stream.vmdk out/target",
        goal: 3.5,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → streamOptimized vmdk",
        args: "convert -f raw -O vmdk -o subformat=streamOptimized plain.raw out/target",
        goal: 7.0,
        best_flags: None,
        verify: of_plain("vmdk"),
        ..CONVERT
    },
    Row {
        name: "vhdx → raw",
        args: "convert -f vhdx -O raw plain.vhdx out/target",
        goal: 3.0,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → vhdx",
        args: "convert -f raw -O vhdx plain.raw out/target",
        goal: 1.5,
        verify: of_plain("vhdx"),
        ..CONVERT
    },
    Row {
        name: "vdi → raw",
        args: "convert -f vdi -O raw plain.vdi out/target",
        goal: 1.3,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → vdi",
        args: "convert -f raw -O vdi plain.raw out/target",
        goal: 1.5,
        verify: of_plain("vdi"),
        ..CONVERT
    },
    Row {
        name: "vhd → raw",
        args: "convert -f vpc -O raw plain.vpc out/target",
        goal: 1.3,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → vhd",
        args: "convert -f raw -O vpc plain.raw out/target",
        goal: 1.5,
        verify: of_plain("vpc"),
        ..CONVERT
    },
    Row {
        name: "qed → raw",
        args: "convert -f qed -O raw plain.qed out/target",
        goal: 1.3,
        verify: of_plain("raw"),
        ..CONVERT
    },
    Row {
        name: "raw → qed",
        args: "convert -f raw -O qed plain.raw out/target",
        goal: 1.5,
        verify: of_plain("qed"),
        ..CONVERT
    },
    Row { name: "info of a small image", args: "info small.qcow2", memory_goal: 2.0, ..SMALL },
    Row { name: "map of a small image", args: "map -f qcow2 small.qcow2", ..SMALL },
    Row { name: "check of a small image", args: "check -f qcow2 small.qcow2", ..SMALL },
    Row {
        name: "create of a small image",
        args: "create -q -f qcow2 out/target 1G",
        verify: Verify::Check,
        ..SMALL
    },
    Row { name: "info of raw", args: "info -f raw plain.raw", ..INFO },
    Row { name: "info of vmdk", args: "info plain.vmdk", ..INFO },
    Row { name: "info of streamOptimized vmdk", args: "info stream.vmdk", ..INFO },
    Row { name: "info of vpc", args: "info plain.vpc", ..INFO },
    Row { name: "info of vhdx", args: "info plain.vhdx", ..INFO },
    Row { name: "info of vdi", args: "info plain.vdi", ..INFO },
    Row { name: "info of qed", args: "info plain.qed", ..INFO },
    Row { name: "info of luks", args: "info dense.luks", ..INFO },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_goals_of_at_least_one() {
        for (number, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..number].iter().all(|other| other.name != row.name), "{}", row.name);
            let goals = [row.goal, row.best_goal, row.memory_goal];
            assert!(goals.iter().all(|goal| *goal >= 1.0) && row.repeat > 0, "{}", row.name);
        }
    }

    #[test]
    fn rows_that_verify_a_target_write_it() {
        for row in ROWS {
            let writes = !matches!(row.verify, Verify::Output | Verify::Success);
            assert_eq!(row.args.contains(TARGET), writes, "{}", row.name);
        }
    }
}
