//! The FUSE disk is what the tests take it for: O_DSYNC writes survive a power cut, unsynced ones are torn.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use holdfast_tests::{fuse::MountedDisk, volatile::Volatile};

#[test]
fn keeps_synced_writes_and_tears_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let disk = MountedDisk::mount(Volatile::default(), at).unwrap();
    let mut made = File::create(at.join("log")).unwrap();
    made.write_all(&[0; 1 << 20]).unwrap();
    made.sync_all().unwrap();
    File::open(at).unwrap().sync_all().unwrap();
    let log = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(at.join("log")).unwrap();
    log.write_all_at(&[1; 65536], 0).unwrap();
    made.write_all_at(&[2; 65536], 65536).unwrap();
    std::fs::write(at.join("never-synced"), "x").unwrap();
    drop((log, made));

    let disk = MountedDisk::mount(disk.power_cut(7), at).unwrap();
    let data = std::fs::read(at.join("log")).unwrap();
    assert_eq!(data.len(), 1 << 20);
    assert!(data[..65536].iter().all(|b| *b == 1));
    let torn = &data[65536..131_072];
    assert!(torn.contains(&0) && torn.contains(&2));
    assert!(!at.join("never-synced").exists());
    drop(disk);
}
