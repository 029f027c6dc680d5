use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, process::Command};

use super::{
    raw::{RawEntry, body, crc, end, end64, file, packed, stored, zip},
    *,
};
mod entries;
mod survival;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn limits() -> Limits {
    Limits { package_entries: 100, entry_bytes: 1 << 22, unpacked_bytes: 1 << 23, ..Limits::default() }
}

fn read(bytes: &[u8]) -> Result<Package, PackageError> {
    Package::read(file(bytes), &limits())
}

fn unpacked(package: &Package) -> Result<BTreeMap<String, (u32, Vec<u8>)>, PackageError> {
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("new");
    let files = package.unpack(&into)?;
    let mut found = BTreeMap::new();
    for unpacked in files {
        let path = into.join(unpacked.name.as_str());
        let bytes = std::fs::read(&path).expect("it was written");
        assert_eq!(unpacked.size, bytes.len() as u64);
        assert_eq!(unpacked.sha256, crate::function::Digest::of(&bytes));
        let mode = path.metadata().expect("it is there").permissions().mode();
        found.insert(unpacked.name.to_string(), (mode & 0o7777, bytes));
    }
    Ok(found)
}

/// The rule that an entry of this zip breaks.
fn rule(entries: &[RawEntry]) -> EntryRule {
    match read(&zip(entries)) {
        Err(PackageError::Entry { rule, .. }) => rule,
        other => panic!("not refused by a rule of entries: {other:?}"),
    }
}

fn malformed(bytes: &[u8]) -> &'static str {
    match read(bytes) {
        Err(PackageError::Malformed(why)) => why,
        other => panic!("not refused as malformed: {other:?}"),
    }
}

#[test]
fn unpacks_files_and_folders_with_modes_of_its_own() {
    let folder = stored("lib/", b"").mode(0o40_777);
    let entries = [
        folder,
        packed("lib/data.txt", b"data"),
        stored("bin/tool", b"tool").mode(0o104_755),
        stored("script", b"#!/bin/sh\n"),
        packed("empty", b""),
        stored("é/ü", b"utf-8").with(|entry| entry.flags = 1 << 11),
    ];
    let files = unpacked(&read(&zip(&entries)).expect("sound")).expect("unpacks");
    let expected = [
        ("bin/tool", 0o755, "tool"),
        ("empty", 0o644, ""),
        ("lib/data.txt", 0o644, "data"),
        ("script", 0o755, "#!/bin/sh\n"),
        ("é/ü", 0o644, "utf-8"),
    ];
    let found: Vec<_> =
        files.iter().map(|(name, (mode, bytes))| (name.as_str(), *mode, std::str::from_utf8(bytes).unwrap())).collect();
    assert_eq!(found, expected);
}

#[test]
fn unpacks_into_a_new_folder_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = read(&zip(&[stored("a", b"a")])).expect("sound");
    let error = package.unpack(folder.path()).expect_err("the folder is there");
    assert!(matches!(error, PackageError::Local(_)), "{error:?}");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).expect("a link");
    assert!(package.unpack(&folder.path().join("link")).is_err());
    assert!(!folder.path().join("a").exists());
}

#[test]
fn reads_what_common_tools_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    std::fs::create_dir(root.join("sub")).unwrap();
    std::fs::write(root.join("sub/program"), b"#!/bin/sh\necho hi\n").unwrap();
    std::fs::set_permissions(root.join("sub/program"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(root.join("large"), "words ".repeat(100_000)).unwrap();

    // The writer that our own command line uses, sizes known beforehand and not.
    let plain = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for options in [plain, plain.large_file(true), plain.with_alignment(4096)] {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.add_directory("sub", options).unwrap();
        writer.start_file("sub/program", options.unix_permissions(0o755)).unwrap();
        std::io::Write::write_all(&mut writer, b"#!/bin/sh\n").unwrap();
        let bytes = writer.finish().unwrap().into_inner();
        let package = read(&bytes).expect("sound");
        assert!(package.file(&EntryName::parse("sub/program").unwrap()).unwrap().is_executable());
        assert_eq!(unpacked(&package).expect("unpacks").len(), 1);
    }

    let tools: [(&str, &[&str]); 4] = [
        ("zip", &["-qr", "out.zip", "sub", "large"]),
        // Standard output can't be sought in: sizes go behind the bytes.
        ("sh", &["-c", "zip -qr - sub large | cat > out.zip"]),
        ("zip", &["-qr", "-fz", "out.zip", "sub", "large"]),
        (
            "python3",
            &[
                "-c",
                "import zipfile, sys\n\
                 class NoSeek:\n \
                  def __init__(self, f): self.f = f\n \
                  def write(self, b): return self.f.write(b)\n \
                  def flush(self): self.f.flush()\n\
                 z = zipfile.ZipFile(NoSeek(open('out.zip', 'wb')), 'w', zipfile.ZIP_DEFLATED)\n\
                 z.write('sub'); z.write('sub/program'); z.write('large'); z.writestr('é', 'x')\n\
                 z.open('forced', 'w', force_zip64=True).close()\n\
                 z.close()",
            ],
        ),
    ];
    for (tool, arguments) in tools {
        let ran = Command::new(tool).args(arguments).current_dir(root).status();
        if ran.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            continue;
        }
        assert!(ran.expect("it starts").success(), "{tool} {arguments:?}");
        let bytes = std::fs::read(root.join("out.zip")).unwrap();
        std::fs::remove_file(root.join("out.zip")).unwrap();
        let package = read(&bytes).unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"));
        let files = unpacked(&package).expect("unpacks");
        assert_eq!(files["sub/program"].0, 0o755, "{tool}");
        assert!(files.values().any(|(_, bytes)| bytes.len() == 600_000), "{tool} {arguments:?}");
    }
}

#[test]
fn refuses_names_that_leave_the_folder_or_mislead() {
    let long = "x/".repeat(127) + "yy";
    let deep = "x/".repeat(32) + "y";
    let cases = [
        ("/etc/passwd", EntryRule::Absolute),
        ("//x", EntryRule::Absolute),
        ("../x", EntryRule::Parent),
        ("a/../../x", EntryRule::Parent),
        ("a/..", EntryRule::Parent),
        ("../", EntryRule::Parent),
        ("..\\x", EntryRule::Backslash),
        ("a\\b", EntryRule::Backslash),
        ("C:x", EntryRule::Colon),
        ("a:stream", EntryRule::Colon),
        ("", EntryRule::EmptyPart),
        ("a//b", EntryRule::EmptyPart),
        ("./a", EntryRule::EmptyPart),
        ("a/.", EntryRule::EmptyPart),
        ("a\nb", EntryRule::Control),
        ("a\0b", EntryRule::Control),
        ("\u{7f}", EntryRule::Control),
        ("é", EntryRule::NotUtf8),
        (&long, EntryRule::LongPath),
        (&deep, EntryRule::Deep),
    ];
    for (name, expected) in cases {
        assert_eq!(rule(&[stored(name, b"x")]), expected, "{name:?}");
    }
    assert_eq!(rule(&[stored("/", b"").mode(0o40_755)]), EntryRule::Absolute);
    let broken = stored("x", b"").with(|entry| {
        entry.name = b"a\xff".to_vec();
        entry.flags = 1 << 11;
    });
    assert_eq!(rule(&[broken]), EntryRule::NotUtf8);
    // The longest and deepest that pass.
    let (long, deep) = ("x".repeat(255), "x/".repeat(31) + "y");
    read(&zip(&[stored(&long, b""), stored(&deep, b"")])).map(|package| package.entries().len()).expect("sound");
}

#[test]
fn messages_show_hostile_names_escaped_and_cut() {
    let error = read(&zip(&[stored(&("a\r\n\x1b[2J".to_owned() + &"b".repeat(200)), b"")])).expect_err("refused");
    let text = error.to_string();
    assert!(text.is_ascii() || text.contains('…'), "{text}");
    assert!(text.contains("a\\r\\n\\u{1b}[2J") && !text.contains('\x1b') && text.len() < 200, "{text}");
}

#[test]
fn refuses_names_that_collide() {
    let folder = || stored("d/", b"").mode(0o40_755);
    assert_eq!(rule(&[stored("a", b"1"), stored("b", b""), stored("a", b"2")]), EntryRule::Duplicate);
    assert_eq!(rule(&[folder(), stored("d/f", b""), folder()]), EntryRule::Duplicate);
    assert_eq!(rule(&[folder(), stored("d", b"")]), EntryRule::Duplicate);
    let utf8 = |name: &str| stored(name, b"").with(|entry| entry.flags = 1 << 11);
    for (one, other) in
        [("a.txt", "A.TXT"), ("É", "é"), ("ς", "σ"), ("straße", "STRASSE"), ("Lib/a", "lib/b"), ("x/Y/a", "x/y")]
    {
        let between = utf8("m");
        assert!(matches!(rule(&[utf8(one), between, utf8(other)]), EntryRule::Case(_)), "{one} {other}");
    }
    for names in [["a", "a/b", "c"], ["a/b/c", "z", "a/b"], ["a", "a!", "a/b"]] {
        let entries: Vec<_> = names.iter().map(|name| stored(name, b"")).collect();
        assert!(matches!(rule(&entries), EntryRule::FileAndFolder(_)), "{names:?}");
    }
    let fine = ["a/b", "a/c", "ab", "a.b", "a!", "b/a/b", "b/a.c"].map(|name| stored(name, b""));
    assert_eq!(unpacked(&read(&zip(&fine)).expect("sound")).expect("unpacks").len(), fine.len());
}

#[test]
fn refuses_what_is_neither_file_nor_folder() {
    assert_eq!(rule(&[stored("l", b"/etc/passwd").mode(0o120_777)]), EntryRule::Link);
    for special in [0o010_644, 0o020_644, 0o060_644, 0o140_644, 0o110_644] {
        assert_eq!(rule(&[stored("s", b"").mode(special)]), EntryRule::Special, "{special:o}");
    }
    assert_eq!(rule(&[stored("d", b"").mode(0o40_755)]), EntryRule::Ambiguous);
    assert_eq!(rule(&[stored("d/", b"").mode(0o100_644)]), EntryRule::Ambiguous);
    assert_eq!(rule(&[stored("d", b"").with(|entry| entry.attributes = 0x10)]), EntryRule::Ambiguous);
    assert_eq!(rule(&[stored("d/", b"x").mode(0o40_755)]), EntryRule::FolderWithBytes);
}

#[test]
fn refuses_encryption_and_methods_it_does_not_unpack() {
    for flag in [1, 1 << 6, 1 << 13] {
        assert_eq!(rule(&[stored("a", b"a").with(|entry| entry.flags = flag)]), EntryRule::Encrypted);
        assert_eq!(rule(&[stored("a", b"a").with(|entry| entry.local.flags = Some(flag))]), EntryRule::Disagrees);
    }
    for method in [1, 6, 9, 12, 14, 93, 95, 99, u16::MAX] {
        assert_eq!(rule(&[stored("a", b"a").with(|entry| entry.method = method)]), EntryRule::Method(method));
    }
}

#[test]
fn refuses_sizes_over_the_limits() {
    let limits = Limits { entry_bytes: 2 << 20, unpacked_bytes: 3 << 20, package_ratio: 50, ..limits() };
    let read = |entries: &[RawEntry]| Package::read(file(&zip(entries)), &limits);
    let bytes = vec![7; 2 << 20];
    read(&[stored("a", &bytes), stored("b", &bytes[..1 << 20])]).map(|package| package.entries().len()).expect("fits");

    let error = read(&[stored("a", &vec![7; (2 << 20) + 1])]).expect_err("one file is too large");
    assert!(error.is_too_large() && error.to_string().contains("2097152"), "{error}");
    let error = read(&[stored("a", &bytes), stored("b", &bytes)]).expect_err("all files are too large");
    assert!(matches!(error, PackageError::TooLarge { of: "bytes unpacked", .. }), "{error}");
    let error = read(&[packed("a", &bytes)]).expect_err("the ratio is too high");
    assert!(matches!(&error, PackageError::Entry { rule: EntryRule::Ratio(50), .. }), "{error}");
    // Small files may be packed as well as they can be.
    read(&[packed("a", &bytes[..1 << 20])]).map(|package| package.entries().len()).expect("small");

    let small = Limits { package_bytes: 1024, ..limits };
    let error = Package::read(file(&zip(&[stored("a", &[0; 1024])])), &small).expect_err("the zip is too large");
    assert!(matches!(error, PackageError::TooLarge { of: "bytes as a zip", .. }), "{error}");
}

#[test]
fn sixty_thousand_entries_are_refused_by_their_count() {
    // Only the last record is there: nothing else is looked at.
    let mut bytes = vec![0; 46 * 60_000];
    bytes.extend(end(60_000, 46 * 60_000, 0, b""));
    let error = read(&bytes).expect_err("too many");
    assert!(matches!(error, PackageError::TooLarge { of: "files and folders", limit: 100, .. }), "{error}");

    let entries: Vec<_> = (0..60_000).map(|i| stored(&format!("{i}"), b"")).collect();
    assert!(matches!(read(&zip(&entries)), Err(PackageError::TooLarge { .. })));
    let many = Limits { package_entries: 65_535, ..limits() };
    assert_eq!(Package::read(file(&zip(&entries)), &many).expect("sound").entries().len(), 60_000);

    // By zip64, more than the old record can say.
    let (mut bytes, start) = body(&[stored("a", b"a")]);
    let size = bytes.len() - start;
    bytes.extend(end64(1 << 40, size as u64, start as u64));
    bytes.extend(end(u16::MAX, size as u32, start as u32, b""));
    assert!(matches!(read(&bytes), Err(PackageError::TooLarge { .. })));
}

#[test]
fn refuses_counts_that_lie() {
    let (bytes, start) = body(&[stored("a", b"a"), stored("b", b"b")]);
    let size = (bytes.len() - start) as u32;
    for (count, why) in [(1, "more than"), (3, "fewer"), (99, "fewer")] {
        let mut bytes = bytes.clone();
        bytes.extend(end(count, size, start as u32, b""));
        assert!(malformed(&bytes).contains(why), "{count}");
    }
    for (size, start) in [(size - 1, start as u32), (size, start as u32 + 1), (size + 1, start as u32 - 1)] {
        let mut bytes = bytes.clone();
        bytes.extend(end(2, size, start, b""));
        assert!(read(&bytes).is_err(), "{size} {start}");
    }
}

#[test]
fn refuses_bytes_that_belong_to_nothing() {
    let sound = zip(&[stored("a", b"a"), stored("b", b"b")]);
    assert!(malformed(&[&sound[..], b"x"].concat()).contains("follow its end"));
    assert!(read(&[b"#!/bin/sh\n", &sound[..]].concat()).is_err());

    // Before the first entry, with all offsets right.
    let hidden = stored("hidden", b"hidden");
    let (front, _) = body(std::slice::from_ref(&hidden));
    let front = &front[..front.len() - 46 - "hidden".len()];
    let shifted = front.len() as u32;
    let entries = [stored("a", b"a").with(|entry| entry.offset_said = Some(shifted))];
    let (rest, start) = body(&entries);
    let mut bytes = [front, &rest].concat();
    bytes.extend(end(1, (rest.len() - start) as u32, (front.len() + start) as u32, b""));
    assert!(malformed(&bytes).contains("before its first entry"));

    // Between two entries, and between the last one and the directory.
    let trailing = stored("a", b"a").with(|entry| entry.behind = front.to_vec());
    assert_eq!(rule(&[trailing.clone(), stored("b", b"b")]), EntryRule::Gap);
    assert_eq!(rule(&[trailing]), EntryRule::Gap);

    // A comment is fine, unless it could pass for another end.
    let (bytes, start) = body(&[stored("a", b"a")]);
    let size = (bytes.len() - start) as u32;
    let commented = |comment: &[u8]| [&bytes[..], &end(1, size, start as u32, comment)].concat();
    read(&commented(b"a comment")).map(|package| package.entries().len()).expect("sound");
    assert!(read(&commented(&end(0, 0, 0, b""))).is_err());
    assert!(read(&commented(&end(1, size, start as u32, b""))).is_err());
}

#[test]
fn refuses_bytes_that_count_twice() {
    // Two names for the same bytes.
    let one = stored("a", b"a");
    let two = stored("b", b"b").with(|entry| entry.offset_said = Some(0));
    assert_eq!(rule(&[one, two]), EntryRule::Overlaps);
    // An entry that reaches over the next: the classic overlapping bomb.
    let bytes = vec![0; 100];
    let wide = stored("a", &bytes).with(|entry| {
        entry.packed_said = Some(120);
        entry.size = 120;
        entry.local.sizes = Some((entry.crc, 120, 120));
    });
    assert_eq!(rule(&[wide, stored("b", b"")]), EntryRule::Overlaps);
    // One whose header lies in the bytes of another.
    let (inner, _) = body(&[stored("b", b"")]);
    let outer = stored("a", &inner);
    let inside = stored("b", b"").with(|entry| entry.offset_said = Some(31));
    assert!(matches!(rule(&[outer, inside]), EntryRule::Overlaps | EntryRule::Gap));
    // One that begins in the directory, and one beyond the end.
    for offset in [200, u32::MAX - 1] {
        let far = stored("b", b"").with(|entry| entry.offset_said = Some(offset));
        assert!(read(&zip(&[stored("a", b""), far])).is_err());
    }
}

#[test]
fn refuses_headers_that_do_not_agree() {
    let changes: [fn(&mut RawEntry); 9] = [
        |entry| entry.local.name = Some(b"b".to_vec()),
        |entry| entry.local.method = Some(0),
        |entry| entry.local.flags = Some(8),
        |entry| (entry.flags, entry.local.flags) = (8, Some(0)),
        |entry| entry.local.sizes = Some((entry.crc ^ 1, entry.packed.len() as u32, entry.size)),
        |entry| entry.local.sizes = Some((entry.crc, 0, entry.size)),
        |entry| entry.local.sizes = Some((entry.crc, entry.packed.len() as u32, 1)),
        |entry| entry.local.extra = Some(utf8_name("c", "a")),
        |entry| entry.extra = utf8_name("c", "a"),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert_eq!(rule(&[packed("a", b"aaaaaaaaaa").with(change)]), EntryRule::Disagrees, "{at}");
    }
    assert_eq!(rule(&[stored("a", b"a").with(|entry| entry.size = 2)]), EntryRule::Disagrees);
    // The same name twice is the same name.
    let named = packed("é", b"x").with(|entry| entry.extra = utf8_name("é", "é"));
    read(&zip(&[named])).map(|package| package.entries().len()).expect("sound");
}

/// Info-ZIP's extra field of the name in UTF-8.
fn utf8_name(name: &str, plain: &str) -> Vec<u8> {
    let mut out = vec![0x75, 0x70];
    out.extend((name.len() as u16 + 5).to_le_bytes());
    out.push(1);
    out.extend(crc(plain.as_bytes()).to_le_bytes());
    out.extend(name.as_bytes());
    out
}

#[test]
fn reads_sizes_behind_the_bytes_in_every_form_but_no_other() {
    for (signature, wide) in [(true, false), (false, false), (true, true), (false, true)] {
        let entries = [packed("a", b"aaaa").streamed(signature, wide), stored("b", b"b").streamed(signature, wide)];
        assert_eq!(unpacked(&read(&zip(&entries)).expect("sound")).expect("unpacks").len(), 2);
        let wrong = packed("a", b"aaaa").streamed(signature, wide).with(|entry| {
            let last = entry.behind.len() - 1;
            entry.behind[last] ^= 1;
        });
        assert_eq!(rule(&[wrong]), EntryRule::Gap);
    }
    assert_eq!(rule(&[packed("a", b"a").streamed(true, false).with(|entry| entry.behind.clear())]), EntryRule::Gap);
}

#[test]
fn reads_zip64_where_it_is_needed_and_refuses_its_tricks() {
    let field = |numbers: &[u64]| {
        let mut out = vec![1, 0];
        out.extend((numbers.len() as u16 * 8).to_le_bytes());
        out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        out
    };
    let wide = |central: &[u64], local: &[u64]| {
        stored("a", b"aaaa").with(|entry| {
            entry.extra = field(central);
            entry.local.extra = Some(field(local));
            entry.local.sizes = Some((entry.crc, u32::MAX, u32::MAX));
            entry.size = u32::MAX;
            entry.packed_said = Some(u32::MAX);
        })
    };
    assert_eq!(unpacked(&read(&zip(&[wide(&[4, 4], &[4, 4])])).expect("sound")).expect("unpacks").len(), 1);
    assert_eq!(rule(&[wide(&[4], &[4, 4])]), EntryRule::Zip64);
    assert_eq!(rule(&[wide(&[4, 4, 0], &[4, 4])]), EntryRule::Zip64);
    assert_eq!(rule(&[wide(&[4, 4], &[4, 5])]), EntryRule::Disagrees);
    assert_eq!(rule(&[wide(&[4, 4], &[4])]), EntryRule::Disagrees);
    assert_eq!(rule(&[wide(&[5, 4], &[4, 4])]), EntryRule::Disagrees);
    assert_eq!(rule(&[wide(&[u64::MAX, u64::MAX], &[4, 4])]), EntryRule::Large(1 << 22));
    let twice = wide(&[4, 4], &[4, 4]).with(|entry| entry.extra.extend(field(&[9, 9])));
    assert_eq!(rule(&[twice]), EntryRule::Zip64);
    let unneeded = stored("a", b"aaaa").with(|entry| entry.extra = field(&[9]));
    assert_eq!(rule(&[unneeded]), EntryRule::Zip64);

    let (bytes, start) = body(&[stored("a", b"a")]);
    let (size, start) = ((bytes.len() - start) as u64, start as u64);
    let sound = [&bytes[..], &end64(1, size, start), &end(u16::MAX, u32::MAX, u32::MAX, b"")].concat();
    assert_eq!(read(&sound).expect("sound").entries().len(), 1);
    for (entries, zip64, old) in [(2, (size, start), 1), (1, (size - 1, start + 1), 1), (1, (size, start), 2)] {
        let tricked =
            [&bytes[..], &end64(entries, zip64.0, zip64.1), &end(old, size as u32, start as u32, b"")].concat();
        assert!(read(&tricked).is_err());
    }
    // The locator points to another record than the one before it.
    let mut elsewhere = sound.clone();
    let pointer = sound.len() - 22 - 20 + 8;
    elsewhere[pointer] ^= 1;
    assert!(malformed(&elsewhere).contains("zip64"));
}

#[test]
fn empty_and_foreign_files_are_refused() {
    assert!(matches!(read(&end(0, 0, 0, b"")), Err(PackageError::Empty)));
    assert!(matches!(read(&zip(&[stored("d/", b"").mode(0o40_755)])), Err(PackageError::Empty)));
    for bytes in [&b""[..], b"PK", COMPONENT, &[0; 100_000], b"Rar!\x1a\x07\x00 and more of it"] {
        assert!(malformed(bytes).contains("is it a zip"), "{bytes:?}");
    }
    let split = {
        let mut bytes = zip(&[stored("a", b"a")]);
        let disk = bytes.len() - 22 + 4;
        bytes[disk] = 1;
        bytes
    };
    assert!(malformed(&split).contains("several"));
}

#[test]
fn unpacking_counts_what_really_comes_out() {
    // A deflate stream of 4 MiB that both headers call 10 bytes, and one whose checksum is another's.
    let bomb = packed("a", &vec![0; 4 << 20]).with(|entry| entry.size = 10);
    let short = packed("a", b"abc").with(|entry| entry.size = 4);
    let other = packed("a", b"abc").with(|entry| entry.crc = crc(b"abd"));
    let garbage = packed("a", b"abc").with(|entry| entry.packed = vec![0xff; 20]);
    let cut = packed("a", b"abcdefgh").with(|entry| entry.packed.truncate(4));
    let trailing = packed("a", b"abc").with(|entry| entry.packed.extend(b"hidden"));
    let wrong = stored("a", b"abc").with(|entry| entry.crc = 0);
    for (at, entry) in [bomb, short, other, garbage, cut, trailing, wrong].into_iter().enumerate() {
        let package = read(&zip(&[entry])).expect("its structure is sound");
        let error = unpacked(&package).expect_err("its bytes are not");
        assert!(matches!(&error, PackageError::Entry { rule: EntryRule::Damaged, .. }), "{at}: {error}");
    }
}

#[test]
fn a_bomb_writes_no_more_than_it_declared() {
    let bomb = RawEntry { size: 10, ..packed("a", &vec![0; 4 << 20]) };
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("new");
    read(&zip(&[bomb])).expect("its structure is sound").unpack(&into).expect_err("its bytes are not");
    assert_eq!(std::fs::metadata(into.join("a")).map(|file| file.len()).unwrap_or(0), 0);
}
