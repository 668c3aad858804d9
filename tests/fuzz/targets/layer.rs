//! A layer's archive into a folder: whatever it says, nothing beside the folder changes, and no file in it
//! is a device of overlayfs's own that the archive forged. Run as root, or owners and devices are refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

fn unpack(archive: &[u8], into: &Path) -> bool {
    let folder = OwnedFd::from(fs::File::open(into).expect("the layer's folder"));
    shim_image::unpack::apply::unpack(archive, folder, "sha256:0").is_ok()
}

fuzz_target!(|archive: &[u8]| {
    let scratch = tempfile::tempdir_in("/dev/shm").expect("a scratch folder");
    let (layer, beside) = (scratch.path().join("layer"), scratch.path().join("beside"));
    fs::create_dir(&layer).expect("the layer's folder");
    fs::create_dir(&beside).expect("its neighbour");
    fs::write(beside.join("file"), "untouched").expect("a file of its neighbour");
    unpack(archive, &layer);
    assert_eq!(fs::read_dir(scratch.path()).expect("the scratch folder").count(), 2);
    assert_eq!(fs::read_dir(&beside).expect("its neighbour").count(), 1);
    assert_eq!(fs::read_to_string(beside.join("file")).expect("its file"), "untouched");
});
