//! Key slots change while the machine may stop: some passphrase always opens the volume, and the
//! disk is what it was.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, create, kinds, open, options};
use rimg_core::RawOptions;
use rimg_testkit::{MemoryDir, MemoryStorage, RecordingStorage};
use std::sync::Arc;

fn amend(line: &str) -> RawOptions {
    let mut wanted = options(line);
    wanted.remove("key-secret");
    wanted
}

#[test]
fn some_passphrase_always_opens_the_volume() {
    for changes in [
        &["state=active,new-secret=t,keyslot=0,iter-time=0"][..],
        &["state=active,new-secret=t,iter-time=0", "state=inactive,old-secret=s"],
        &["state=active,new-secret=t,iter-time=0", "state=inactive,keyslot=0"],
    ] {
        let made = MemoryDir::new(DRIVERS);
        create(&made, 4096, "cipher-alg=aes-128,cipher-mode=cbc,preallocation=full");
        let start = made.file("disk");
        let mut bytes = vec![0; usize::try_from(start.len_bytes().unwrap()).unwrap()];
        start.read_exact_at(&mut bytes, 0).unwrap();
        let file = Arc::new(RecordingStorage::starting_with(MemoryStorage::from(bytes)));
        let dir = MemoryDir::new(DRIVERS);
        dir.put("disk", file.clone());
        for change in changes {
            let image = open(&dir, true).unwrap();
            image.amender().unwrap().amend(&amend(change), true, &mut |_, _| {}).unwrap();
        }
        let mut states = 0;
        for state in file.crash_states(2, 7) {
            dir.put("disk", state.storage.clone());
            let opened = ["s", "t"].into_iter().find_map(|key| {
                let key = options(&format!("key-secret={key}"));
                dir.open_with("disk", "luks", true, &key).ok()
            });
            let what = format!("{changes:?} after {} records, {:?}", state.prefix, state.fates);
            let image = opened.expect(&what);
            let mut read = vec![1; 4096];
            image.read_at(&mut read, 0).unwrap();
            assert_eq!(read, vec![0; 4096], "{what}");
            states += 1;
        }
        assert!(states > 10, "{states}");
        dir.put("disk", file);
        assert!(open(&dir, true).is_err(), "{changes:?}");
    }
}

#[test]
fn a_crash_loses_only_what_was_not_synced() {
    for kind in kinds().into_iter().take(2) {
        kind.crash(2, 10);
    }
}
