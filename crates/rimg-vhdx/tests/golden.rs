//! Every VHDX image of `testdata/` reads as its manifest says, or is refused as it says.

use rimg_testkit::golden;

#[test]
fn images_read_as_the_manifest_says() {
    golden::read_all(&rimg_vhdx::DRIVER);
}
