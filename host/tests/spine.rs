//! The whole way: push, run, history, with the real binary and real guests.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::{
    fixtures::{example, zip, zipped},
    server::Server,
};

#[tokio::test]
async fn the_documented_push_and_a_run() {
    let server = Server::start("");
    let package = server.path("package.zip");
    std::fs::write(&package, zip(&[("hello.wasm", &example("hello.wasm"))])).expect("the zip");
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--location", "--request", "POST"])
        .arg(server.url("/api/function/pushfunction?functionName=ExampleFunction&type=dll&lane=dev&newVersion=true"))
        .arg("--form")
        .arg(format!("file=@\"{}\"", package.display()))
        .output()
        .await
        .expect("curl is there");
    let pushed: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&pushed["version"], &pushed["lane"], &pushed["type"]), (&json!("1.0"), &json!("dev"), &json!("dll")));
    assert_eq!(pushed["entry"], "hello.wasm");

    let (status, ran) = server.run("ExampleFunction", json!({ "name": "Ada" })).await;
    assert_eq!(status, StatusCode::OK, "{ran}");
    assert!(ran["result"].to_string().contains("Ada"), "{ran}");
    assert_eq!(ran["output"].as_array().expect("output").len(), 1, "{ran}");
    assert_eq!((&ran["status"], &ran["version"]), (&json!("succeeded"), &json!("1.0")));
}

#[tokio::test]
async fn versions_follow_one_another_and_selectors_choose() {
    let server = Server::start("");
    let package = |text: &str| zip(&[("run.sh", format!("#!/bin/sh\necho '\"{text}\"'\n").as_bytes())]);
    for (new, expected) in [(true, "1.0"), (false, "1.1"), (false, "1.2"), (true, "2.0"), (false, "2.1")] {
        let query = format!("functionName=versions&type=exe&lane=dev&newVersion={new}");
        let (status, body) = server.push_zip(&query, package(expected)).await;
        assert_eq!((status, body["version"].as_str()), (StatusCode::CREATED, Some(expected)), "{body}");
    }
    let (_, body) = server.push_zip("functionName=versions&type=exe&lane=production", package("p")).await;
    assert_eq!(body["version"], "1.0", "lanes count apart");
    for (selector, expected) in
        [("", "2.1"), ("0", "2.1"), ("latest", "2.1"), ("1", "1.2"), ("2", "2.1"), ("1.0", "1.0"), ("1.1", "1.1")]
    {
        let fields = json!({ "functionName": "versions", "lane": "dev", "version": selector });
        let (status, body) = server.run_with(fields).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!((&body["version"], &body["result"]), (&json!(expected), &json!(expected)), "{selector}");
    }
    for (selector, code) in [("3", "version_not_found"), ("1.9", "version_not_found"), ("x", "invalid_name")] {
        let fields = json!({ "functionName": "versions", "lane": "dev", "version": selector });
        assert_eq!(server.run_with(fields).await.1["code"], code, "{selector}");
    }
    let (_, listed) = server.get("/api/functions/versions").await;
    assert_eq!(listed["versions"].as_array().expect("versions").len(), 6, "{listed}");
    let (_, one) = server.get("/api/functions/versions/dev/1.1").await;
    assert_eq!((&one["version"], &one["type"], &one["entry"]), (&json!("1.1"), &json!("exe"), &json!("run.sh")));
    let (_, all) = server.get("/api/functions").await;
    assert_eq!(all["functions"][0]["lanes"][0], json!({ "lane": "dev", "newest": "2.1", "versions": 5 }));
}

#[tokio::test]
async fn every_way_to_pass_a_call() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("context.wasm").await;
    let run = |request: reqwest::RequestBuilder| async move {
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::OK, "{body}");
        body["result"].clone()
    };
    let post = |path: &str| server.client.post(server.url(path));
    let expected = json!({ "a": [1, "ü"] });
    let text = expected.to_string();
    let fields = json!({ "FUNCTIONNAME": "echo", "Lane": "dev", "payLoad": expected, "payLoadEncrypted": false });
    assert_eq!(run(post("/api/function/runfunction").json(&fields)).await, expected);
    let as_text = json!({ "functionName": "echo", "lane": "dev", "payload": text });
    assert_eq!(run(post("/api/runfunction").json(&as_text)).await, expected);
    let query = "/api/function/runfunction?functionName=echo&lane=dev";
    assert_eq!(run(post(query).body(text.clone())).await, expected);
    let form = [("functionName", "echo"), ("lane", "dev"), ("payload", &text)];
    let body = serde_urlencoded_like(&form);
    let urlencoded = post("/api/function/runfunction")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.clone());
    assert_eq!(run(urlencoded).await, expected);
    assert_eq!(run(post(&format!("/api/function/runfunction?{body}"))).await, expected);
    let parts =
        reqwest::multipart::Form::new().text("functionName", "echo").text("lane", "dev").text("payload", text.clone());
    assert_eq!(run(post("/api/function/runfunction").multipart(parts)).await, expected);

    let context =
        run(post("/api/function/runfunction?functionName=context&lane=dev&callerId=me&colour=red").body("{}"));
    let context = context.await;
    assert_eq!(context["version"], "1.0");
    let text = context.to_string();
    for part in ["\"me\"", "colour", "red", "context", "dev"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn serde_urlencoded_like(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let server = Server::start("[limits]\npayload_bytes = 1000\npackage_bytes = 1000000\n");
    server.push("echo.wasm").await;
    let code = async |fields: Value| server.run_with(fields).await.1["code"].clone();
    assert_eq!(code(json!({ "lane": "dev" })).await, "invalid_request");
    assert_eq!(code(json!({ "functionName": "../x", "lane": "dev" })).await, "invalid_name");
    assert_eq!(code(json!({ "functionName": "echo", "lane": "a.b" })).await, "invalid_name");
    assert_eq!(code(json!({ "functionName": "nobody", "lane": "dev" })).await, "function_not_found");
    assert_eq!(code(json!({ "functionName": "echo", "lane": "dev", "type": "exe" })).await, "type_conflict");
    assert_eq!(code(json!({ "functionName": "echo", "lane": "dev", "type": "x" })).await, "invalid_request");
    assert_eq!(
        code(json!({ "functionName": "echo", "lane": "dev", "payloadEncrypted": true })).await,
        "invalid_payload"
    );
    let big = json!({ "functionName": "echo", "lane": "dev", "payload": "x".repeat(1001) });
    assert_eq!(code(big).await, "payload_too_large");

    let push = async |query: &str, zip: Vec<u8>| server.push_zip(query, zip).await;
    let (status, body) = push("functionName=echo&lane=dev&type=exe", zipped("exe-echo")).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("type_conflict")), "{body}");
    let (_, body) = push("functionName=ECHO&lane=dev", zipped("echo.wasm")).await;
    assert_eq!(body["code"], "version_conflict", "{body}");
    let (_, body) = push("functionName=x&lane=dev", b"no zip".to_vec()).await;
    assert_eq!(body["code"], "invalid_package", "{body}");
    let (_, body) = push("functionName=x&lane=dev", zipped("no-shape.wasm")).await;
    assert!(body["code"] == "invalid_package" && body["detail"].to_string().contains("execute"), "{body}");
    let (_, body) = push("functionName=x&lane=dev", zipped("imports-unknown.wasm")).await;
    assert_eq!(body["code"], "invalid_package", "{body}");
    let (_, body) = push("functionName=x&lane=dev", zip(&[("x.wasm", b"\0asm\x01\0\0\0")])).await;
    assert!(body["code"] == "invalid_package" && body["detail"].to_string().contains("component"), "{body}");
    let (_, body) = push("functionName=x&lane=dev&colour=red", zipped("echo.wasm")).await;
    assert!(body["code"] == "invalid_request" && body["detail"].to_string().contains("colour"), "{body}");
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = (0..1_100_000).map(|_| random.u8(..)).collect();
    let (status, body) = push("functionName=x&lane=dev", zip(&[("x.wasm", &noise)])).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("package_too_large")), "{body}");

    for (method, path, code) in [
        ("GET", "/api/function/runfunction", "method_not_allowed"),
        ("GET", "/nowhere", "not_found"),
        ("GET", "/api/invocations/x", "invalid_request"),
        ("GET", "/api/invocations/00000000-0000-7000-8000-000000000000", "invocation_not_found"),
        ("GET", "/api/functions/nobody", "function_not_found"),
        ("GET", "/api/invocations?limit=0", "invalid_request"),
        ("GET", "/api/invocations?status=odd", "invalid_request"),
    ] {
        let request = server.client.request(method.parse().expect("a method"), server.url(path));
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["code"], code, "{path}: {body}");
    }
    // Nothing of what was refused remains.
    let (_, all) = server.get("/api/functions").await;
    assert_eq!(all["functions"].as_array().expect("functions").len(), 1, "{all}");
    let staged = std::fs::read_dir(server.path("functionstore/.staging")).map_or(0, Iterator::count);
    let arriving = std::fs::read_dir(server.path("artifacts/incoming")).expect("the folder").count();
    let packages = std::fs::read_dir(server.path("artifacts/packages")).expect("the folder").count();
    assert_eq!((staged, arriving, packages), (0, 0, 1));
}

#[tokio::test]
async fn history_is_kept_paged_and_survives_the_server() {
    let mut server = Server::start("");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;
    let mut ids = Vec::new();
    for i in 0..5 {
        let fields =
            json!({ "functionName": "echo", "lane": "dev", "payload": i, "callerId": format!("caller-{}", i % 2) });
        ids.push(server.run_with(fields).await.1["invocationId"].as_str().expect("an id").to_owned());
    }
    let (status, failed) = server.run("return-error", json!("x")).await;
    assert_eq!((status, &failed["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("function_failed")), "{failed}");
    ids.push(failed["invocationId"].as_str().expect("an id").to_owned());
    server.stop();
    server.restart();

    let (_, all) = server.get("/api/invocations?limit=4").await;
    let page = |body: &Value| -> Vec<String> {
        let calls = body["invocations"].as_array().expect("a page");
        calls.iter().map(|call| call["invocationId"].as_str().expect("an id").to_owned()).collect()
    };
    let mut seen = page(&all);
    assert_eq!(seen.len(), 4);
    let (_, rest) = server.get(&format!("/api/invocations?before={}", all["next"].as_str().expect("more"))).await;
    seen.extend(page(&rest));
    assert_eq!(rest["next"], Value::Null);
    seen.reverse();
    assert_eq!(seen, ids);

    let count = async |query: &str| page(&server.get(&format!("/api/invocations?{query}")).await.1).len();
    assert_eq!(count("function=echo").await, 5);
    assert_eq!(count("callerId=caller-1").await, 2);
    assert_eq!(count("status=failed").await, 1);
    assert_eq!(count("lane=production").await, 0);
    let (_, one) = server.get(&format!("/api/invocations/{}", ids[3])).await;
    assert_eq!(
        (&one["result"], &one["status"], &one["callerId"]),
        (&json!(3), &json!("succeeded"), &json!("caller-1"))
    );
    let (_, failed) = server.get(&format!("/api/invocations/{}", ids[5])).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("function_failed")));
}

#[tokio::test]
async fn calls_that_are_not_waited_for() {
    let server = Server::start("");
    server.push("sleep.wasm").await;
    server.push("exe-sleep").await;
    for name in ["sleep", "exe-sleep"] {
        let id = server.start_call(name, json!(60_000)).await;
        server.call_when(&id, |call| call["status"] == "running").await;
        let delete =
            server.client.delete(server.url(&format!("/api/invocations/{id}"))).send().await.expect("an answer");
        assert_eq!(delete.status(), StatusCode::ACCEPTED);
        let call = server.ended(&id).await;
        assert_eq!((&call["status"], &call["error"]["code"]), (&json!("cancelled"), &json!("cancelled")), "{call}");
        let again =
            server.client.delete(server.url(&format!("/api/invocations/{id}"))).send().await.expect("an answer");
        assert_eq!(again.status(), StatusCode::OK);
    }
    let missing = server
        .client
        .post(server.url("/api/function/runfunction?functionName=nobody&lane=dev"))
        .header("Prefer", "respond-async");
    assert_eq!(missing.send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_its_call_alone() {
    let server = Server::start("");
    server.push("sleep.wasm").await;
    let fields = json!({ "functionName": "sleep", "lane": "dev", "payload": 1500, "callerId": "gone" });
    let request = server.client.post(server.url("/api/function/runfunction")).json(&fields);
    let hurried = request.timeout(Duration::from_millis(700)).send().await;
    assert!(hurried.is_err(), "it hung up");
    let (_, running) = server.get("/api/invocations?callerId=gone").await;
    let id = running["invocations"][0]["invocationId"].as_str().expect("it is known").to_owned();
    assert_eq!(server.ended(&id).await["status"], "succeeded");
}

#[tokio::test]
async fn output_is_streamed_as_it_comes() {
    let server = Server::start("");
    let script = "#!/bin/sh\necho one\necho two >&2\nsleep 0.3\necho three\n";
    let query = "functionName=printer&type=exe&lane=dev";
    assert_eq!(server.push_zip(query, zip(&[("run.sh", script.as_bytes())])).await.0, StatusCode::CREATED);
    let id = server.start_call("printer", Value::Null).await;
    let events =
        server.client.get(server.url(&format!("/api/invocations/{id}/output"))).header("accept", "text/event-stream");
    let text = events.send().await.expect("an answer").text().await.expect("text");
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["output", "output", "output", "completed"], "{text}");
    assert!(text.contains("id: 2\n"), "{text}");
    // Once more from history, after the second line.
    let again = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
    let again = again.header("accept", "text/event-stream").header("last-event-id", "1");
    let text = again.send().await.expect("an answer").text().await.expect("text");
    assert!(text.starts_with("id: 2\n") && text.contains("three"), "{text}");
    let plain =
        server.client.get(server.url(&format!("/api/invocations/{id}/output"))).send().await.expect("an answer");
    let plain = plain.text().await.expect("text");
    assert_eq!(plain.lines().count(), 3, "{plain}");
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let server = Server::start("");
    assert_eq!(server.get("/healthz").await, (StatusCode::OK, json!({ "status": "ok" })));
    let (status, ready) = server.get("/readyz").await;
    let checks = &ready["checks"];
    assert_eq!((status, &checks["store"], &checks["database"]), (StatusCode::OK, &json!("ok"), &json!("ok")));
    assert!(["confined", "partly_confined"].iter().any(|word| checks["programs"] == *word), "{checks}");
    let (_, document) = server.get("/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/api/function/pushfunction", "/api/function/runfunction", "/api/invocations/{id}/output", "/readyz"] {
        assert!(paths.contains_key(path), "{path}");
    }
}

#[tokio::test]
async fn a_running_call_is_waited_for_at_shutdown() {
    let mut server = Server::start("");
    server.push("sleep.wasm").await;
    let id = server.start_call("sleep", json!(800)).await;
    server.call_when(&id, |call| call["status"] == "running").await;
    server.stop();
    server.restart();
    let (_, call) = server.get(&format!("/api/invocations/{id}")).await;
    assert_eq!(call["status"], "succeeded", "{call}");
}

#[tokio::test]
async fn every_example_does_what_it_says() {
    let server = Server::start("");
    for name in ["hello.wasm", "echo.wasm", "csv-summary.wasm", "progress.wasm", "word-count-native"] {
        let kind = if name.ends_with(".wasm") { "dll" } else { "exe" };
        let query = format!("functionName={}&lane=dev&type={kind}", name.trim_end_matches(".wasm"));
        let (status, body) = server.push_zip(&query, zip(&[(name, &example(name))])).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let result = async |name: &str, payload: Value| {
        let (status, body) = server.run(name, payload).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    };
    assert_eq!(result("hello", json!({ "name": "Ada" })).await["result"], json!({ "greeting": "Hello, Ada!" }));
    let any = json!({ "any": ["JSON", 1, null] });
    assert_eq!(result("echo", any.clone()).await["result"], any);
    let csv = json!({ "csv": "city,people\nOslo,709037\nBergen,285911\n" });
    let summary = result("csv-summary", csv).await["result"].to_string();
    assert!(summary.contains("people") && summary.contains("709037") && summary.contains("285911"), "{summary}");
    let progress = result("progress", json!({ "steps": 3, "delayMs": 1 })).await;
    assert!(progress["output"].as_array().expect("lines").len() >= 3, "{progress}");
    let counted = result("word-count-native", json!({ "text": "to be or not to be" })).await["result"].to_string();
    assert!(counted.contains('6'), "{counted}");
    // Results that are no JSON object reach the caller as they are, and bad payloads as the function's error.
    let (status, refused) = server.run("hello", json!([1])).await;
    assert_eq!((status, &refused["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("function_failed")));
}

#[test]
fn a_wrong_configuration_is_refused_by_name_and_line() {
    let unknown = Server::refusal("[limits]\nmemry_bytes = 1\n");
    assert!(unknown.contains("memry_bytes") && unknown.contains("line 2"), "{unknown}");
    let missing = Server::refusal("[store]\nurl = \"ftp://me@127.0.0.1:1/x\"\npassword_env = \"SHARPFAAS_NOT_SET\"\n");
    assert!(missing.contains("SHARPFAAS_NOT_SET"), "{missing}");
    let plain = Server::refusal("[store]\nurl = \"ftp://me@192.0.2.1/x\"\n");
    assert!(plain.contains("insecure = true"), "{plain}");
}
