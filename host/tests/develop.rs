//! `sharpfaas new`, `build` and `dev`: from nothing to a function that runs, with the tools of this machine and no
//! network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::common::{
    process::eventually,
    server::{PATIENCE, Server},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sharpfaas");
/// How long a compiler may take that has nothing built before.
const BUILD: Duration = Duration::from_secs(300);

/// What a command came to.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A command of ours in a folder. What it builds is kept for the next run of the tests.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let target = Path::new(PROGRAM).parent().and_then(Path::parent).expect("a target folder").join("develop");
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true").env_remove("VIRTUAL_ENV");
    command
}

pub async fn ran(mut command: Command) -> Ran {
    let output = timeout(BUILD, command.output()).await.expect("in time").expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Makes, builds, pushes and runs a project; what it greets with. The folder is the project's.
pub async fn made_built_and_run(server: &Server, template: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let name = format!("greet-{template}");
    let made = ran(command(folder.path(), &["new", &name, "--template", template])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let project = folder.path().join(&name);
    let mut build = command(&project, &["build"]);
    if template == "rust-http" {
        // Nothing else here needs its crates, so they may have to be fetched.
        build.env_remove("CARGO_NET_OFFLINE");
    }
    let built = ran(build).await;
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert!(built.stdout.starts_with(&format!("./dist/{name}.zip (")), "{}", built.stdout);

    let zip = format!("dist/{name}.zip");
    let pushed = ran(command(&project, &["push", &zip, "--server", &server.url])).await;
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
    let (status, call) = server.run(&name, json!({ "name": "Ada" })).await;
    assert_eq!((status.as_u16(), &call["result"]), (200, &json!({ "greeting": "Hello, Ada!" })), "{call}");
    let said = call["output"].as_array().expect("lines").iter().any(|line| line["line"] == "greeting Ada");
    assert!(said, "{call}");
    let (status, call) = server.run(&name, json!({ "name": "" })).await;
    assert_eq!(status, 500);
    assert!(call["detail"].as_str().expect("text").contains("a guest needs a name"), "{call}");
    (folder, project)
}

#[tokio::test]
async fn a_component_in_rust() {
    made_built_and_run(&Server::start(""), "rust").await;
}

#[tokio::test]
async fn a_native_program() {
    made_built_and_run(&Server::start(""), "exe").await;
}

#[tokio::test]
async fn what_is_there_or_no_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("taken")).expect("made");
    for (arguments, words) in [
        (&["new", "taken"][..], "it is there already"),
        (&["new", "1st"], "begins with a letter"),
        (&["new", "a b"], "functionName"),
        (&["new", "self"], "taken by something"),
        (&["new", "sharpfaas", "-t", "js"], "taken by something"),
        (&["new", "Hello", "-t", "js"], "lower case"),
        (&["new", "x", "-t", "cobol"], "possible values: rust, rust-http, js, python, exe"),
        (&["build"], "there is no project here"),
        (&["dev"], "there is no project here"),
        (&["build", "nowhere"], "nowhere"),
    ] {
        let ran = ran(command(folder.path(), arguments)).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    assert_eq!(fs::read_dir(folder.path().join("taken")).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_tool_that_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (template, tool, install) in [
        ("rust", "cargo", "https://rustup.rs"),
        ("exe", "cargo", "https://rustup.rs"),
        ("js", "npm", "https://nodejs.org"),
        ("python", "python3", "install Python 3.11"),
    ] {
        let made = ran(command(folder.path(), &["new", template, "--template", template])).await;
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let mut build = command(folder.path(), &["build", template]);
        build.env("PATH", folder.path());
        let built = ran(build).await;
        assert_eq!(built.code, Some(3), "{}", built.stderr);
        assert!(
            built.stderr.contains(&format!("{tool} is missing: ")) && built.stderr.contains(install),
            "{}",
            built.stderr
        );
    }
}

#[tokio::test]
async fn a_project_that_does_not_say_what_to_build_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let manifest = "[package]\nname = \"f\"\nedition = \"2024\"\n[workspace]\n";
    fs::create_dir(path.join("src")).expect("made");
    for (file, text, words) in [
        ("package.json", "{", "package.json: "),
        ("package.json", r#"{ "name": "@us/f" }"#, "'scripts' has no 'build'"),
        ("package.json", r#"{ "name": "a b" }"#, "package.json names it 'a b'"),
        ("Cargo.toml", "[workspace]\n", "describes no package but a workspace"),
        ("Cargo.toml", manifest, "crate-type"),
    ] {
        fs::write(path.join(file), text).expect("written");
        fs::write(path.join("src/lib.rs"), "").expect("written");
        let built = ran(command(path, &["build"])).await;
        assert_eq!(built.code, Some(2), "{text}: {}", built.stderr);
        assert!(built.stderr.contains(words), "{text}: {}", built.stderr);
    }
}

/// `sharpfaas dev` at work.
struct Dev {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Dev {
    fn start(project: &Path, arguments: &[&str]) -> Self {
        Self::start_with(command(project, &[&["dev"], arguments].concat()))
    }

    fn start_with(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Self {
            stdin: stdin.expect("a pipe"),
            stdout: BufReader::new(stdout.expect("a pipe")).lines(),
            stderr: BufReader::new(stderr.expect("a pipe")).lines(),
            child,
        }
    }

    /// The next result.
    async fn result(&mut self) -> String {
        let line = timeout(BUILD, self.stdout.next_line()).await.expect("in time").expect("read");
        line.expect("a result")
    }

    /// The next line on standard error that has this in it.
    async fn says(&mut self, words: &str) -> String {
        loop {
            let line = timeout(BUILD, self.stderr.next_line()).await.expect("in time").expect("read");
            let line = line.unwrap_or_else(|| panic!("it ended and never said {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).expect("told");
    }

    async fn ended(mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("it ends").code()
    }
}

/// Makes a project. All of them are built into one folder, so each needs a name of its own.
async fn new(name: &str, template: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = ran(command(folder.path(), &["new", name, "--template", template])).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let project = folder.path().join(name);
    (folder, project)
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("it is there");
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).expect("written");
}

/// Whether nobody listens there any more.
async fn gone(url: &str) {
    let address = url.trim_start_matches("http://").to_owned();
    eventually("its server has ended", || match std::net::TcpStream::connect(&address) {
        Ok(_) => Err(format!("{address} listens")),
        Err(_) => Ok(()),
    })
    .await;
}

#[tokio::test]
async fn dev_runs_again_when_something_changes_and_ctrl_c_ends_it() {
    let (_folder, project) = new("dev-changes", "exe").await;
    let temporary = tempfile::tempdir().expect("a folder");
    let mut start = command(&project, &["dev"]);
    start.env("TMPDIR", temporary.path());
    let mut dev = Dev::start_with(start);
    let url = dev.says("server: ").await.replace("server: ", "");
    dev.says("dev-changes 1.0 in dev").await;
    assert_eq!(dev.result().await, r#"{"greeting":"Hello, Ada!"}"#);
    dev.says("waiting for changes").await;

    let source = project.join("src/main.rs");
    edit(&source, "format!(\"Hello, {}!\"", "format!(\"Goodbye, {}!\"");
    assert_eq!(dev.result().await, r#"{"greeting":"Goodbye, Ada!"}"#);
    dev.says("dev-changes 1.1 in dev").await;
    dev.says("waiting for changes").await;

    edit(&source, "fn main()", "fn main(");
    dev.says("could not be built").await;
    dev.says("waiting for changes").await;
    edit(&source, "fn main(", "fn main()");
    assert_eq!(dev.result().await, r#"{"greeting":"Goodbye, Ada!"}"#);
    dev.says("waiting for changes").await;

    fs::write(project.join("payload.json"), r#"{"name": "Bob"}"#).expect("written");
    assert_eq!(dev.result().await, r#"{"greeting":"Goodbye, Bob!"}"#);
    dev.says("waiting for changes").await;
    dev.stdin.write_all(b"{\"name\": \"\"}\n").await.expect("typed");
    dev.says("a guest needs a name").await;
    dev.says("function_failed").await;
    dev.stdin.write_all(b"{\"name\": \"Eve\"}\n").await.expect("typed");
    assert_eq!(dev.result().await, r#"{"greeting":"Goodbye, Eve!"}"#);
    // What was typed last is what it goes on with.
    dev.says("waiting for changes").await;
    dev.stdin.write_all(b"\n").await.expect("typed");
    assert_eq!(dev.result().await, r#"{"greeting":"Goodbye, Eve!"}"#);

    dev.signal(Signal::INT);
    assert_eq!(dev.ended().await, Some(0));
    gone(&url).await;
    assert_eq!(fs::read_dir(temporary.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn dev_that_is_killed_takes_its_server_along() {
    let (_folder, project) = new("dev-killed", "exe").await;
    // Nobody is left to remove what it has there.
    let temporary = tempfile::tempdir().expect("a folder");
    let mut start = command(&project, &["dev", "--payload", r#"{"name": "Zoe"}"#]);
    start.env("TMPDIR", temporary.path());
    let mut dev = Dev::start_with(start);
    let url = dev.says("server: ").await.replace("server: ", "");
    assert_eq!(dev.result().await, r#"{"greeting":"Hello, Zoe!"}"#);
    dev.signal(Signal::KILL);
    dev.ended().await;
    gone(&url).await;
}

#[tokio::test]
async fn dev_uses_another_server_and_a_change_ends_a_call_that_goes_on() {
    let server = Server::start("");
    let (_folder, project) = new("dev-elsewhere", "rust").await;
    let source = project.join("src/lib.rs");
    let greeting = "sharpfaas::println!(\"greeting {}\", guest.name);";
    edit(&source, greeting, &format!("{greeting} loop {{ std::thread::yield_now(); }}\n #[allow(unreachable_code)]"));
    let mut dev = Dev::start(&project, &["--server", &server.url]);
    dev.says("greeting Ada").await;
    let call = server.call_when_of("dev-elsewhere", "running").await;
    edit(&source, "loop { std::thread::yield_now(); }\n #[allow(unreachable_code)]", "");
    assert_eq!(dev.result().await, r#"{"greeting":"Hello, Ada!"}"#);
    let id = call["invocationId"].as_str().expect("an id");
    assert_eq!(server.ended(id).await["status"], "cancelled");
    dev.says("dev-elsewhere 1.1 in dev").await;
    dev.signal(Signal::TERM);
    assert_eq!(dev.ended().await, Some(0));
    assert_eq!(server.get("/readyz").await.0, 200);
}
