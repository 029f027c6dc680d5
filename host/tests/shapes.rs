//! What a component is by its exports, and how each shape is called.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::{
    fixtures::{fixture, zip, zipped},
    server::Server,
};

/// The lines that a call printed on a stream.
fn lines<'a>(answer: &'a Value, stream: &str) -> Vec<&'a str> {
    let output = answer["output"].as_array().expect("output");
    output.iter().filter(|line| line["stream"] == stream).filter_map(|line| line["line"].as_str()).collect()
}

#[tokio::test]
async fn shapes_are_found_at_push_and_shown() {
    let server = Server::start("");
    for (file, shape) in [
        ("echo.wasm", json!("execute")),
        ("http.wasm", json!("http")),
        ("command.wasm", json!("command")),
        ("command-preview1.wasm", json!("command")),
        ("module.wasm", json!("execute")),
        ("module-preview1.wasm", json!("execute")),
        ("async-execute.wasm", json!("execute")),
        ("async-abi.wasm", json!("execute")),
        ("wasi3-http.wasm", json!("http")),
        ("wasi3-command.wasm", json!("command")),
        ("exe-echo", Value::Null),
    ] {
        let name = file.trim_end_matches(".wasm");
        let kind = if name == file { "exe" } else { "dll" };
        let (status, pushed) =
            server.push_zip(&format!("functionName={name}&lane=dev&type={kind}"), zipped(file)).await;
        assert_eq!((status, &pushed["shape"]), (StatusCode::CREATED, &shape), "{pushed}");
        let (_, version) = server.get(&format!("/api/functions/{name}/dev/latest")).await;
        assert_eq!(version["shape"], shape, "{version}");
        let (_, all) = server.get(&format!("/api/functions/{name}")).await;
        assert_eq!(all["versions"][0]["shape"], shape, "{all}");
        let manifest = std::fs::read(server.path(&format!("functionstore/dev/1.0/{name}/manifest.json")));
        let manifest: Value = serde_json::from_slice(&manifest.expect("a manifest")).expect("JSON");
        assert_eq!(manifest["shape"], shape, "{manifest}");
    }
}

#[tokio::test]
async fn a_version_of_before_there_were_shapes_is_execute() {
    let mut server = Server::start("");
    server.push("echo.wasm").await;
    server.stop();
    let path = server.path("functionstore/dev/1.0/echo/manifest.json");
    let manifest = std::fs::read_to_string(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest.as_object_mut().expect("an object").remove("shape");
    std::fs::write(&path, manifest.to_string()).expect("written");
    std::fs::remove_file(server.path("sharpfaas.db")).expect("it is there");
    server.restart();
    let (status, body) = server.run("echo", json!("hello")).await;
    assert_eq!((status, &body["result"]), (StatusCode::OK, &json!("hello")), "{body}");
    let (_, version) = server.get("/api/functions/echo/dev/1.0").await;
    assert_eq!(version["shape"], "execute", "{version}");
}

#[tokio::test]
async fn a_command_gets_its_payload_as_programs_do() {
    let server = Server::start("[limits]\nmemory_bytes = 33554432\nresult_bytes = 300000");
    for name in ["command", "command-preview1", "wasi3-command"] {
        server.push(&format!("{name}.wasm")).await;
        let run = async |payload: Value| server.run(name, payload).await;

        let (status, body) = run(json!({ "a": 1 })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let said = body["result"].as_str().expect("text");
        assert!(said.starts_with(r#"["{\"a\":1}"] "{\"a\":1}" SHARPFAAS_INVOCATION_ID,"#), "{said}");
        assert!(said.contains("SHARPFAAS_LANE") && !said.contains("PATH"), "{said}");
        assert_eq!((lines(&body, "stderr"), lines(&body, "stdout")), (vec!["to the console"], vec![said]));

        let long = "x".repeat(140_000);
        let (_, body) = run(json!(long)).await;
        assert!(body["result"].as_str().is_some_and(|said| said.starts_with("[\"-\"] \"xxx")), "{name}");

        // WASI 0.2 and preview 1 tell no other code than 1.
        let code = if name == "wasi3-command" { 7 } else { 1 };
        let failed = format!("exited with code {code}: first line\nit went wrong");
        for (payload, code, detail) in [
            ("\"fail\"", "function_failed", failed.as_str()),
            ("\"panic\"", "function_trapped", "deliberately"),
            ("\"flood\"", "function_failed", "more than the 300000 bytes"),
            ("\"hungry\"", "memory_exceeded", "32 MiB"),
        ] {
            let (_, body) = run(json!(payload)).await;
            assert_eq!(body["code"], code, "{body}");
            assert!(body["detail"].as_str().is_some_and(|said| said.contains(detail)), "{body}");
        }
        let (status, body) = run(json!("\"quit\"")).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!("well")), "{body}");
    }
}

#[tokio::test]
async fn a_command_of_wasi_3_ends_as_it_says_or_is_ended() {
    let server = Server::start("[limits]\ndeadline_seconds = 1");
    server.push("wasi3-command.wasm").await;
    for (payload, code, detail) in [
        ("\"refuse\"", "function_failed", "exited with code 1: I would rather not"),
        ("\"spin\"", "deadline_exceeded", "deadline"),
    ] {
        let (_, body) = server.run("wasi3-command", json!(payload)).await;
        assert_eq!(body["code"], code, "{body}");
        assert!(body["detail"].as_str().is_some_and(|said| said.contains(detail)), "{body}");
    }
}

#[tokio::test]
async fn a_module_that_names_its_world_runs_as_a_component() {
    let server = Server::start("");
    for name in ["module", "module-preview1"] {
        server.push(&format!("{name}.wasm")).await;
        let (status, body) = server.run(name, json!("\"well\"")).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!("well")), "{body}");
        assert_eq!(lines(&body, "stdout"), ["a line of 4 bytes"]);

        let (_, body) = server.run(name, json!("\"panic\"")).await;
        assert_eq!(body["code"], "function_trapped", "{body}");
        let id = body["invocationId"].as_str().expect("an id");
        let (_, call) = server.get(&format!("/api/invocations/{id}")).await;
        let told = lines(&call, "stderr").join("\n");
        assert!(told.contains("panicked at modules/src/lib.rs") && told.contains("deliberately"), "{told}");
    }
    let module = zip(&[("bare.wasm", b"\0asm\x01\0\0\0")]);
    let (status, body) = server.push_zip("functionName=bare&lane=dev&type=dll", module).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_package")), "{body}");
    assert!(body["detail"].as_str().is_some_and(|said| said.contains("the types of its world")), "{body}");
}

#[tokio::test]
async fn execute_may_be_of_the_async_abi() {
    let mut server = Server::start("");
    for (name, printed) in [("async-execute", "waiting"), ("async-abi", "called as async-abi")] {
        server.push(&format!("{name}.wasm")).await;
        let (status, body) = server.run(name, json!({ "a": [1] })).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!({ "a": [1] })), "{body}");
        assert_eq!(lines(&body, "stdout"), [printed]);
    }
    let (_, body) = server.run("async-execute", Value::Null).await;
    assert_eq!((&body["code"], &body["detail"]), (&json!("function_failed"), &json!("nothing to give back")), "{body}");
    // The machine code is found again, and is that of the right engine.
    let code = |server: &Server| std::fs::read_dir(server.path("artifacts/code")).expect("a folder").count();
    let before = code(&server);
    server.stop();
    server.restart();
    for name in ["async-execute", "async-abi"] {
        let (status, body) = server.run(name, json!(1)).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!(1)), "{body}");
    }
    assert_eq!((before, code(&server)), (4, 4));
}

#[tokio::test]
async fn a_handler_of_http_is_called_with_a_payload() {
    let server = Server::start("[limits]\nresult_bytes = 1000");
    for name in ["http", "wasi3-http"] {
        server.push(&format!("{name}.wasm")).await;
        let (status, body) = server.run(name, json!({ "a": [1] })).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!({ "a": [1] })), "{body}");
        assert_eq!(lines(&body, "stdout"), ["asked for /"]);
        let (_, body) = server.run(name, json!("x".repeat(1001))).await;
        assert!(body["code"] == "function_failed" && body["detail"].to_string().contains("1000 bytes"), "{body}");
    }
}

#[tokio::test]
async fn of_several_shapes_the_first_counts_unless_the_package_says_another() {
    let server = Server::start("");
    for (declared, shape, result) in [
        ("", "execute", "by execute"),
        ("shape = \"command\"", "command", "by run"),
        ("shape = \"execute\"", "execute", "by execute"),
    ] {
        let package = zip(&[("both.wasm", &fixture("both.wasm")), ("sharpfaas.toml", declared.as_bytes())]);
        let (_, pushed) = server.push_zip("functionName=both&lane=dev", package).await;
        assert_eq!(pushed["shape"], shape, "{declared}: {pushed}");
        let (_, body) = server.run("both", Value::Null).await;
        assert_eq!(body["result"], result, "{declared}: {body}");
    }
}

#[tokio::test]
async fn a_package_says_what_runs_and_how() {
    let server = Server::start("");
    let both = |toml: &str| {
        zip(&[
            ("a.wasm", &fixture("echo.wasm")),
            ("b.wasm", &fixture("command.wasm")),
            ("sharpfaas.toml", toml.as_bytes()),
        ])
    };
    let push = async |toml: &str| server.push_zip("functionName=two&lane=dev", both(toml)).await;
    let (status, pushed) = push("entry = \"b.wasm\"").await;
    assert_eq!(
        (status, &pushed["entry"], &pushed["shape"]),
        (StatusCode::CREATED, &json!("b.wasm"), &json!("command"))
    );
    let (_, pushed) = push("entry = \"a.wasm\"\nshape = \"execute\"").await;
    assert_eq!((&pushed["entry"], &pushed["shape"]), (&json!("a.wasm"), &json!("execute")), "{pushed}");

    for (toml, said) in [
        ("entry = \"b.wasm\"\nshape = \"execute\"", "can be run as 'command'"),
        ("entry = \"c.wasm\"", "c.wasm"),
        ("entri = \"a.wasm\"", "`entri`"),
        ("entry = ", "sharpfaas.toml"),
    ] {
        let (status, body) = push(toml).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_package")), "{toml}: {body}");
        assert!(body["detail"].as_str().is_some_and(|text| text.contains(said)), "{toml}: {body}");
    }
    let program = zip(&[("main", b"#!/bin/sh\necho hello\n"), ("sharpfaas.toml", b"shape = \"http\"")]);
    let (_, body) = server.push_zip("functionName=program&lane=dev&type=exe", program).await;
    assert!(body["code"] == "invalid_package" && body["detail"].to_string().contains("'shape'"), "{body}");
    // The version that a call asks for runs as it was pushed.
    let (_, body) =
        server.run_with(json!({ "functionName": "two", "lane": "dev", "version": "1.0", "payload": "\"quit\"" })).await;
    assert_eq!(body["result"], "well", "{body}");
    let (_, body) = server.run("two", json!("kept")).await;
    assert_eq!(body["result"], "kept", "{body}");
}

#[tokio::test]
async fn a_server_may_refuse_the_async_abi() {
    let server = Server::start("[runtime]\nasync_abi = false");
    for name in ["async-abi", "wasi3-command"] {
        let (status, body) = server.push_zip("functionName=it&lane=dev", zipped(&format!("{name}.wasm"))).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_package")), "{body}");
        assert!(body["detail"].as_str().is_some_and(|text| text.contains("runtime.async_abi")), "{body}");
    }
    server.push("echo.wasm").await;
}
