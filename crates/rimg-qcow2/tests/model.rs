//! Random changes to images of every kind, compared with plain bytes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{DRIVERS, Op, apply, create, kinds, open, ops};
use proptest::prelude::*;
use rimg_core::Repair;
use rimg_testkit::MemoryDir;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_image_is_the_disk_that_was_written(kind in kinds(), ops in ops(60)) {
        let dir = MemoryDir::new(DRIVERS);
        let mut model = create(&dir, &kind);
        let mut image = open(&dir);
        model.assert_same(image.as_ref(), "new");
        for op in &ops {
            if matches!(op, Op::Reopen) {
                image.close().unwrap();
                image = open(&dir);
                assert_sound(image.as_ref());
            }
            apply(op, image.as_ref(), &mut model);
        }
        model.assert_same(image.as_ref(), "written");
        image.close().unwrap();
        let image = dir.open("disk", "qcow2", false).unwrap();
        model.assert_same(image.as_ref(), "opened again");
        assert_sound(image.as_ref());
    }
}

fn assert_sound(image: &dyn rimg_core::BlockImage) {
    let mut findings = Vec::new();
    image
        .checker()
        .unwrap()
        .check(Repair::Nothing, &mut |finding| findings.push(finding.message.clone()))
        .unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}
