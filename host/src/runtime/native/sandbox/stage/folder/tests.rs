use std::{fs, os::unix::fs::PermissionsExt};

use rustix::fs::{Timespec, Timestamps};

use super::{super::Stage, *};

type Touch = fn(&Path);

/// What a program can do to its folder and undo again, so that it looks as before.
const TOUCHES: [(&str, Touch); 6] = [
    ("a file, removed again", |folder| {
        fs::write(folder.join("x"), "x").expect("written");
        fs::remove_file(folder.join("x")).expect("removed");
    }),
    ("a folder, removed again", |folder| {
        fs::create_dir(folder.join("x")).expect("made");
        fs::remove_dir(folder.join("x")).expect("removed");
    }),
    ("a link, removed again", |folder| {
        std::os::unix::fs::symlink("/", folder.join("x")).expect("made");
        fs::remove_file(folder.join("x")).expect("removed");
    }),
    ("its mode, set back", |folder| {
        for mode in [0o777, 0o700] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("set");
        }
    }),
    ("an attribute, removed again", |folder| {
        rustix::fs::setxattr(folder, c"user.word", b"hello", rustix::fs::XattrFlags::empty()).expect("set");
        rustix::fs::removexattr(folder, c"user.word").expect("removed");
    }),
    ("its times, set back", |folder| {
        let before = rustix::fs::stat(folder).expect("there");
        let time = |sec, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec };
        let times = Timestamps {
            last_access: time(before.st_atime, i64::try_from(before.st_atime_nsec).expect("some")),
            last_modification: time(before.st_mtime, i64::try_from(before.st_mtime_nsec).expect("some")),
        };
        rustix::fs::utimensat(CWD, folder, &times, AtFlags::empty()).expect("set");
    }),
];

#[test]
fn whatever_is_done_in_a_folder_shows() {
    let dir = tempfile::tempdir().expect("a folder");
    let Ok(stage) = Stage::build(dir.path(), "touched") else {
        eprintln!("not tested: this may not mount");
        return;
    };
    let path = stage.folder("one");
    let inside = move || {
        let make = || Folder::make(&path, 1_900_000_000, 64 << 20).expect("made");
        let folder = make();
        assert!(folder.fits(1_900_000_000, 64 << 20) && !folder.fits(1_900_000_001, 64 << 20));
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
        assert_eq!(folder.is_untouched(), has_fine_times(), "who only looks touches nothing");
        folder.remove();
        assert!(!path.exists());
        for (what, touch) in TOUCHES {
            let folder = make();
            touch(folder.path());
            assert!(!folder.is_untouched(), "{what}");
            folder.remove();
        }
        // A file without a name, while it is there.
        let folder = make();
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let file = rustix::fs::openat(CWD, folder.path(), flags, Mode::RUSR | Mode::WUSR).expect("made");
        rustix::io::write(&file, b"hello").expect("written");
        assert!(!folder.is_untouched());
        drop(file);
        folder.remove();
    };
    stage.inside(inside).expect("done");
}
