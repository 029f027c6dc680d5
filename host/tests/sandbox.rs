//! Native programs that mean no good: each refused or contained, its neighbours unharmed, and nothing of it left.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt, chown},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::{
    fixtures::{example, fixture, fixture_path, zip, zipped},
    process::{Holdings, alive, eventually, given_back},
    server::{PROGRAM, STARTED_BY, Server},
};

mod hogs;
mod ordinary;

/// Whether programs run as other users, in namespaces: under a server that runs as root and may mount. Without
/// that, some of what follows is kept from them by other means, and some of it not at all.
async fn staged(server: &Server) -> bool {
    let (_, ready) = server.get("/readyz").await;
    assert_ne!(ready["checks"]["programs"], "refused", "{ready}");
    let staged = !ready["checks"]["shortfalls"].to_string().contains("own user");
    if !staged {
        println!("programs run as the server's own user here: what takes another is not tested");
    }
    staged
}

/// A server with these settings as a test's machine lets it; one that may not mount, as in a container: its programs
/// run as its own user; and one of an ordinary user.
fn servers(config: &str) -> Vec<Server> {
    let mut servers = vec![Server::start(config)];
    if rustix::process::geteuid().is_root() {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let without = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin";
        servers.push(Server::start_in(folder, config, &[(STARTED_BY, without)]));
        servers.push(unprivileged(config));
    } else {
        println!("this test does not run as root: only servers that don't are tested");
    }
    servers
}

/// A server of a user who may do nothing that others may not.
fn unprivileged(config: &str) -> Server {
    const NOBODY: u32 = 65_534;
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    // It was built where that user may not go.
    let (built, program) = (env!("CARGO_BIN_EXE_sharpfaas"), folder.path().join("sharpfaas"));
    fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).expect("linked or copied");
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given");
    let as_nobody =
        format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set -all --inh-caps -all");
    let program = program.display().to_string();
    Server::start_in(folder, config, &[(STARTED_BY, &as_nobody), (PROGRAM, &program)])
}

async fn result(server: &Server, name: &str, payload: Value) -> Value {
    let (status, body) = server.run(name, payload).await;
    assert_eq!(status, StatusCode::OK, "{name}: {body}");
    body["result"].clone()
}

/// The numbers that a call prints as `pid N`, once it prints `ready`.
async fn pids_when_ready(server: &Server, id: &str) -> Vec<u32> {
    let url = server.url(&format!("/api/invocations/{id}/output"));
    let mut output = server.client.get(url).send().await.expect("an answer");
    let mut text = String::new();
    while !text.contains("ready") {
        text += &String::from_utf8_lossy(&output.chunk().await.expect("a part").expect("it goes on"));
    }
    text.split("pid ")
        .skip(1)
        .map(|rest| rest.split_whitespace().next().unwrap_or_default())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn pid(line: &Value) -> u32 {
    line.as_str().and_then(|line| line.trim().strip_prefix("pid ")?.parse().ok()).expect("a number")
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Control groups of the server, in all hierarchies.
fn groups(server: &Server) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there is /proc");
    let roots = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let marked = format!("-{}-", server.pid());
    let mut found = Vec::new();
    for root in roots {
        let mut waiting = vec![PathBuf::from(root)];
        while let Some(folder) = waiting.pop() {
            let inner = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            waiting.extend(inner.filter(|path| path.is_dir()));
            found.extend(waiting.last().cloned());
        }
    }
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(&marked)));
    found
}

#[tokio::test]
async fn files_of_others_are_out_of_reach() {
    for server in servers("") {
        server.push("exe-reach").await;
        server.push("exe-sleep").await;
        server.push("exe-environment").await;
        let neighbour = server.start_call("exe-sleep", json!(20_000)).await;
        server.call_when(&neighbour, |call| call["status"] == "running").await;
        let own = result(&server, "exe-environment", Value::Null).await;
        let folder = PathBuf::from(own["workingFolder"].as_str().expect("a path"));
        let data = server.folder.path();
        // Its own package is its to read.
        let mut secrets = files(data);
        secrets.retain(|path| !path.ends_with("files/exe-reach"));
        assert!(secrets.iter().any(|path| path.ends_with("sharpfaas.db")), "{secrets:?}");
        assert!(secrets.iter().any(|path| path.ends_with("manifest.json")), "{secrets:?}");
        let others = files(&data.join("artifacts/packages"));
        assert!(others.len() > 3, "{others:?}");
        let system = [
            "/etc/shadow",
            "/etc/sudoers",
            "/root/.bashrc",
            "/var/log/dpkg.log",
            "/dev/mem",
            "/dev/vda",
            "/proc/kcore",
        ];
        let of_server = ["environ", "mem", "maps", "cmdline", "root/etc/shadow", "cwd", "fd/0"];
        let read: Vec<String> = secrets
            .iter()
            .map(|path| path.display().to_string())
            .chain(system.map(str::to_owned))
            .chain(of_server.map(|name| format!("/proc/{}/{name}", server.pid())))
            .collect();
        // As programs see them, too.
        let inside = folder.parent().expect("a parent").to_owned();
        let list: Vec<String> =
            [data, Path::new("/tmp"), Path::new("/root"), &inside, Path::new("/home"), Path::new("/sys/fs/cgroup")]
                .iter()
                .map(|path| path.display().to_string())
                .collect();
        let outside = tempfile::tempdir().expect("a folder");
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let write = json!([
            outside.path().join("new"),
            "/tmp/sharpfaas-was-here",
            "/dev/shm/sharpfaas-was-here",
            "/etc/passwd",
            "/usr/bin/true",
            own["arguments"][0],
        ]);
        let found = result(
            &server,
            "exe-reach",
            json!({ "read": read, "list": list, "link": read, "own": read, "write": write }),
        )
        .await;
        let refused = |outcome: &Value| ["EACCES", "EPERM", "ENOENT", "EROFS"].iter().any(|error| outcome == error);
        let reached: Vec<_> =
            found.as_object().expect("an object").iter().filter(|(_, outcome)| !refused(outcome)).collect();
        assert_eq!(reached, Vec::<(&String, &Value)>::new());
        assert!(found.as_object().expect("an object").len() > 30, "all was tried");
        assert_eq!(files(outside.path()), Vec::<PathBuf>::new());
        // And its own it has.
        let own =
            json!({ "write": ["mine"], "list": ["."], "read": ["/proc/self/stat", "/etc/passwd"], "link": ["mine"] });
        for (what, outcome) in result(&server, "exe-reach", own).await.as_object().expect("an object") {
            assert!(outcome.as_str().is_some_and(|text| text.starts_with("done")), "{what}: {outcome}");
        }
        assert_eq!(server.get(&format!("/api/invocations/{neighbour}")).await.1["status"], "running");
    }
}

#[tokio::test]
async fn the_network_and_other_processes_are_out_of_reach() {
    for server in servers("") {
        for name in ["exe-reach", "exe-ticks", "exe-fork-ignore-term"] {
            server.push(name).await;
        }
        let neighbour = server.start_call("exe-fork-ignore-term", json!({ "children": 1 })).await;
        let mut pids = pids_when_ready(&server, &neighbour).await;
        assert_eq!(pids.len(), 3);
        pids.extend([server.pid(), std::process::id(), 1]);

        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let path = folder.path().join("socket");
        let unix = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("set");
        let name = format!("sharpfaas-{}", uuid::Uuid::now_v7());
        let hidden =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for quiet in [
            tcp.set_nonblocking(true),
            udp.set_nonblocking(true),
            unix.set_nonblocking(true),
            hidden.set_nonblocking(true),
        ] {
            quiet.expect("set");
        }
        let connect = json!([
            format!("tcp:{}", server.url.trim_start_matches("http://")),
            format!("tcp:{}", tcp.local_addr().expect("an address")),
            "tcp:192.0.2.1:80",
            format!("udp:{}", udp.local_addr().expect("an address")),
            format!("unix:{}", path.display()),
            format!("abstract:{name}"),
        ]);
        let found =
            result(&server, "exe-reach", json!({ "connect": connect, "signal": pids, "limit": pids, "trace": pids }))
                .await;
        for (what, outcome) in found.as_object().expect("an object") {
            assert!(["EACCES", "EPERM", "ESRCH"].iter().any(|error| outcome == error), "{what}: {outcome}");
        }
        assert_eq!(found.as_object().expect("an object").len(), 6 + 3 * 6);
        assert!(tcp.accept().is_err() && unix.accept().is_err() && hidden.accept().is_err());
        assert!(udp.recv(&mut [0; 10]).is_err(), "nothing came");
        assert!(pids.iter().all(|pid| alive(*pid)), "all of them are unharmed");
    }
}

#[tokio::test]
async fn calls_of_the_kernel_that_no_function_needs_are_refused() {
    for server in servers("") {
        server.push("exe-syscalls").await;
        let staged = staged(&server).await;
        let found = result(&server, "exe-syscalls", Value::Null).await;
        for (what, outcome) in found.as_object().expect("an object") {
            let expected: &[&str] = match what.as_str() {
                "clone3" => &["ENOSYS"],
                "x32" => &["signal 31", "refused"],
                // A kernel without 32-bit programs has no such way in.
                "i386" => &["signal 31", "signal 11"],
                // The server's own user asks for what it is already.
                "setuid root" | "setgid root" if !staged => &["EPERM", "done"],
                _ => &["EPERM"],
            };
            assert!(expected.iter().any(|error| outcome == error), "{what}: {outcome}");
        }
        assert!(found.as_object().expect("an object").len() > 40);
    }
}

#[tokio::test]
async fn what_a_grant_gives_is_given_to_whom_it_names_alone() {
    let shared = tempfile::tempdir().expect("a folder");
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::write(shared.path().join("model"), "weights").expect("written");
    let path = shared.path().join("model").display().to_string();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    const USER: u32 = 1_800_000_123;
    let server = Server::start(&format!(
        "[[grants]]\nlanes = [\"d*\"]\nfunctions = [\"exe-reach\"]\nnetwork = true\nread = [{:?}]\n\
         [[grants]]\nfunctions = [\"exe-env*\"]\nenvironment = {{ MODEL = \"small\", PATH = \"/usr/bin\" }}\n\
         [[grants]]\nfunctions = [\"exe-env*\"]\nuser_id = {USER}\n",
        shared.path()
    ));
    server.push("exe-reach").await;
    server.push("exe-environment").await;
    let (status, body) =
        server.push_zip("functionName=other&lane=dev&type=exe", zip(&[("exe-reach", &fixture("exe-reach"))])).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let ask = json!({
        "read": [path], "write": [path], "connect": [format!("tcp:{}", tcp.local_addr().expect("an address"))],
    });
    let given = result(&server, "exe-reach", ask.clone()).await;
    let outcomes: Vec<&str> = given.as_object().expect("an object").values().filter_map(Value::as_str).collect();
    assert_eq!(outcomes, ["done: ", "done: weights", "EACCES"], "{given}");
    let refused = result(&server, "other", ask).await;
    for (what, outcome) in refused.as_object().expect("an object") {
        assert!(["EACCES", "EPERM"].iter().any(|error| outcome == error), "{what}: {outcome}");
    }
    let given = result(&server, "exe-environment", Value::Null).await;
    let variables = &given["variables"];
    assert_eq!((&variables["MODEL"], &variables["PATH"]), (&json!("small"), &json!("/usr/bin")));
    if staged(&server).await {
        assert_eq!(given["user"], json!([USER, USER]));
    }
}

/// A link that one call leaves is not there for the next; a folder is never another's.
#[tokio::test]
async fn nothing_is_left_for_the_next_call() {
    let server = Server::start("[limits]\nprocesses = 1\n");
    server.push("exe-reach").await;
    server.push("exe-environment").await;
    let (mut folders, mut users) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let planted = result(&server, "exe-reach", json!({ "link": ["/etc/passwd"], "write": ["x"] })).await;
        assert!(planted["link /etc/passwd"].as_str().is_some_and(|text| text.starts_with("done")), "{planted}");
        let found = result(&server, "exe-environment", Value::Null).await;
        assert_eq!(found["files"], json!([]));
        folders.push(found["workingFolder"].clone());
        users.push(found["process"].clone());
    }
    folders.dedup();
    assert_eq!(folders.len(), 3, "{folders:?}");
}

#[tokio::test]
async fn a_set_user_id_program_lends_no_rights() {
    for server in servers("") {
        let script = b"#!/bin/sh\nexec \"$SHARPFAAS_PACKAGE/id\" -u\n";
        let id = fs::read("/usr/bin/id").expect("it is there");
        let (status, body) = server
            .push_zip("functionName=who&lane=dev&type=exe&entryFileName=main", zip(&[("main", script), ("id", &id)]))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let before = result(&server, "who", Value::Null).await;
        let unpacked = files(&server.path("artifacts/packages"));
        let unpacked = unpacked.iter().find(|path| path.ends_with("id")).expect("it was unpacked");
        fs::set_permissions(unpacked, fs::Permissions::from_mode(0o4755)).expect("set");
        assert_eq!(result(&server, "who", Value::Null).await, before);
        if staged(&server).await {
            assert_ne!(before, json!(0));
        }
    }
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_call() {
    for server in servers("") {
        server.push("exe-daemon").await;
        let outside = tempfile::tempdir().expect("a folder");
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).expect("set");
        let late = outside.path().join("late");
        let left = pid(&result(&server, "exe-daemon", json!(late)).await);
        assert!(!alive(left), "it was ended before the answer came");
        assert!(!late.exists());
        let groups = groups(&server);
        let members = groups.iter().flat_map(|group| files(group)).filter(|path| path.ends_with("cgroup.procs"));
        assert_eq!(members.filter(|path| !fs::read_to_string(path).unwrap_or_default().is_empty()).count(), 0);
    }
}

/// What a server that was killed left is gone when the next one has started.
#[tokio::test]
async fn a_killed_server_leaves_nothing_for_long() {
    let mut server = Server::start("");
    server.push("exe-fork-ignore-term").await;
    let call = server.start_call("exe-fork-ignore-term", json!({ "children": 2 })).await;
    let pids = pids_when_ready(&server, &call).await;
    assert!(pids.len() == 4 && pids.iter().all(|pid| alive(*pid)));
    let made = groups(&server);
    server.kill();
    server.restart();
    eventually("its processes are gone", || match pids.iter().find(|pid| alive(**pid)) {
        None => Ok(()),
        Some(pid) => Err(format!("{pid} lives")),
    })
    .await;
    eventually("its groups are gone", || match made.iter().find(|group| group.exists()) {
        None => Ok(()),
        Some(group) => Err(group.display().to_string()),
    })
    .await;
    let made = groups(&server);
    server.stop();
    assert!(made.iter().all(|group| !group.exists()), "and a server that is stopped removes its own");
}

/// A kernel that can't confine programs runs none, unless it is told to; components run all the same.
#[tokio::test]
async fn a_kernel_without_landlock_runs_programs_only_where_that_will_do() {
    let without = fixture_path("without-landlock").display().to_string();
    for (programs, word) in [("required", "refused"), ("best-effort", "partly_confined")] {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let config = format!("[sandbox]\nprograms = \"{programs}\"\n");
        let server = Server::start_in(folder, &config, &[(STARTED_BY, &without)]);
        let (_, ready) = server.get("/readyz").await;
        assert_eq!(ready["checks"]["programs"], word, "{ready}");
        assert!(ready["checks"]["shortfalls"].to_string().contains("the kernel has no Landlock"), "{ready}");
        server.push("exe-echo").await;
        let (status, body) = server.run("exe-echo", json!({ "a": 1 })).await;
        if word == "refused" {
            assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unconfined")), "{body}");
        } else {
            assert_eq!((status, &body["result"]), (StatusCode::OK, &json!({ "a": 1 })), "{body}");
        }
        let (status, body) = server.push_zip("functionName=component&lane=dev", zipped("echo.wasm")).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        assert_eq!(result(&server, "component", json!({ "a": 1 })).await, json!({ "a": 1 }));
    }
}

#[tokio::test]
async fn strictness_is_what_the_configuration_says() {
    let server = Server::start("[sandbox]\nprograms = \"off\"\n");
    let (_, ready) = server.get("/readyz").await;
    assert_eq!(ready["checks"]["programs"], "unconfined", "{ready}");
    server.push("exe-reach").await;
    let outside = server.path("reached").display().to_string();
    let found = result(&server, "exe-reach", json!({ "write": [outside] })).await;
    assert_eq!(found[format!("write {outside}")], "done: ");
    let refusal = Server::refusal("[sandbox]\nprograms = \"maybe\"\n");
    assert!(refusal.contains("`required`, `best-effort`, `off`"), "{refusal}");
    for (grant, expected) in [
        ("read = [\"relative\"]", "'relative' is not an absolute path"),
        ("lanes = [\"a/b\"]", "'a/b' is not a pattern"),
        ("environment = { HOME = \"/\" }", "'HOME' is the server's to set"),
        ("read = [\"/no/such/place\"]", "/no/such/place"),
    ] {
        let refusal = Server::refusal(&format!("[[grants]]\n{grant}\n"));
        assert!(refusal.contains(expected), "{refusal}");
    }
}
