use super::*;

const DOCUMENTED: &str = include_str!("../../../config.toml");
const SECTIONS: [&str; 7] = ["server", "store", "artifacts", "database", "limits", "runtime", "history"];

/// The keys of a section, as the refusal of an unknown one lists them.
fn keys(section: &str) -> Vec<String> {
    let error = Config::parse(&format!("[{section}]\nno_such_key = 1\n")).expect_err("it is unknown");
    let listed = error.split("expected one of").nth(1).or(error.split("expected").nth(1)).expect("a list");
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_documented_file_holds_the_defaults() {
    let documented = Config::parse(DOCUMENTED).expect("it is valid");
    assert_eq!(format!("{documented:?}"), format!("{:?}", Config::default()));
}

#[test]
fn every_key_is_documented() {
    for section in SECTIONS {
        let keys = keys(section);
        assert!(keys.len() >= 2, "{section}: {keys:?}");
        let start = DOCUMENTED.find(&format!("[{section}]")).expect("the section is there");
        let text = DOCUMENTED.get(start + 1..).expect("in the text");
        let text = text.split("\n[").next().expect("a first part");
        for key in keys {
            assert!(
                text.contains(&format!("\n{key} = ")) || text.contains(&format!("\n# {key} = ")),
                "[{section}] {key}"
            );
        }
    }
}

#[test]
fn refusals_name_key_and_line() {
    let refusal = |text: &str| Config::parse(text).expect_err("refused");
    let unknown = refusal("[server]\nlisten = \"127.0.0.1:1\"\nlsten = 2\n");
    assert!(unknown.contains("line 3") && unknown.contains("lsten"), "{unknown}");
    let bound = refusal("[limits]\n\nconcurrency = 0\n");
    assert!(bound.contains("line 3") && bound.contains("1 to 100000"), "{bound}");
    let scheme = refusal("[store]\nurl = \"http://x\"\n");
    assert!(scheme.contains("line 2") && scheme.contains("ftps://"), "{scheme}");
    for secret in ["[store]\nurl = \"ftp://me:hush@host/x\"", "[database]\nurl = \"postgres://me:hush@host/x\""] {
        let text = refusal(secret);
        assert!(text.contains("password_file"), "{text}");
    }
    assert!(refusal("[other]\n").contains("other"));
    assert!(refusal("[limits]\nqueue = -1\n").contains("out of bounds"));
}

#[test]
fn store_urls_parse_into_their_parts() {
    let parse = |text: &str| text.parse::<StoreUrl>();
    assert_eq!(
        parse("ftp://me@example.org:2121/a%20b/functionstore/"),
        Ok(StoreUrl::Ftp(FtpUrl {
            tls: false,
            host: "example.org".into(),
            port: 2121,
            user: "me".into(),
            root: "/a b/functionstore".into(),
        }))
    );
    let Ok(StoreUrl::Ftp(ftps)) = parse("ftps://[::1]/x") else { panic!("it parses") };
    assert_eq!((ftps.tls, ftps.host.as_str(), ftps.port, ftps.user.as_str()), (true, "::1", 21, "anonymous"));
    assert_eq!(parse("file:data/x"), Ok(StoreUrl::File("data/x".into())));
    assert_eq!(parse("file:///srv/x"), Ok(StoreUrl::File("/srv/x".into())));
    for bad in ["", "file:", "ftp://", "ftp://h/%zz", "ftp://h/%0d%0aDELE", "/plain/path"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn secrets_are_read_and_never_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("password");
    std::fs::write(&path, "hush\n").expect("it is written");
    let read = secret("store", "password", Some(&path), None).expect("it is read").expect("it is there");
    assert_eq!(read.expose(), "hush");
    assert_eq!(format!("{read:?}"), "***");
    assert!(secret("store", "password", Some(&path), Some("X")).is_err());
    assert!(secret("store", "password", None, Some("SHARPFAAS_NO_SUCH_VARIABLE")).is_err());
    assert_eq!(secret("store", "password", None, None).expect("nothing named"), None);
}
