//! The hub, as its clients see it: both dialects and tails.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::{
    server::Server,
    websocket::{END, SignalR, Socket, lines},
};

mod command_line;
mod load;
mod vanish;

/// What `print-lines` prints on standard output and error.
const PRINTED: [&str; 10] = [
    "first",
    "in two parts",
    "",
    "ünïcöde",
    "not UTF-8: \u{fffd}\u{fffd}.",
    "three",
    "at",
    "once",
    "no end on stdout",
    "a warning",
];

/// Lines of two streams, in an order of their own.
fn sorted(lines: &[impl AsRef<str>]) -> Vec<String> {
    let mut lines: Vec<_> = lines.iter().map(|line| line.as_ref().to_owned()).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn negotiation() {
    let server = Server::start("");
    let ask = async |query: &str| {
        let response = server.client.post(server.url(&format!("/functions/negotiate{query}"))).send().await;
        let response = response.expect("an answer");
        (response.status(), response.json::<Value>().await.expect("JSON"))
    };
    let transports = json!([{ "transport": "WebSockets", "transferFormats": ["Text"] }]);
    let (status, first) = ask("?negotiateVersion=1").await;
    assert_eq!(
        (status, &first["negotiateVersion"], &first["availableTransports"]),
        (StatusCode::OK, &json!(1), &transports)
    );
    assert!(first["connectionToken"].is_string() && first["connectionId"].is_string());
    let (_, old) = ask("").await;
    assert_eq!((&old["negotiateVersion"], &old["connectionToken"]), (&json!(0), &Value::Null));
    let (_, next) = ask("?negotiateVersion=9").await;
    assert_eq!(next["negotiateVersion"], 1);
    assert_ne!(first["connectionToken"], next["connectionToken"]);
    let (status, problem) = ask("?negotiateVersion=x").await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    // What is no WebSocket is told so.
    let (status, problem) = server.get("/functions").await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
}

#[tokio::test]
async fn signalr_streams_what_a_function_prints() {
    let server = Server::start("");
    for fixture in ["print-lines.wasm", "echo.wasm", "ticks.wasm", "return-error.wasm", "exe-echo"] {
        server.push(fixture).await;
    }
    let mut hub = SignalR::connect(&server).await;
    hub.stream("a", json!(["print-lines", "dev"])).await;
    let (items, end) = hub.streamed("a").await;
    assert_eq!(sorted(&items), sorted(&[&PRINTED[..], &["no end on stderr"]].concat()));
    assert_eq!(end, json!({ "type": 3, "invocationId": "a" }));

    hub.stream("b", json!(["exe-echo", "dev", "1", { "x": 1 }, false, "exe"])).await;
    assert_eq!(hub.streamed("b").await, (vec![r#"{"x":1}"#.into()], json!({ "type": 3, "invocationId": "b" })));

    hub.stream("c", json!(["return-error", "dev", "", "\"why\""])).await;
    let (_, end) = hub.streamed("c").await;
    assert!(end["error"].as_str().is_some_and(|error| error.starts_with("function_failed: ")), "{end}");

    // Several at once, told apart by their ids.
    for id in ["1", "2", "3"] {
        hub.stream(id, json!(["ticks", "dev", "", { "count": 5, "everyMs": 20 }])).await;
    }
    let (mut seen, mut ended) = (vec![vec![]; 4], 0);
    while ended < 3 {
        let message = hub.message().await;
        let id: usize = message["invocationId"].as_str().and_then(|id| id.parse().ok()).expect("a number");
        match message["item"].as_str() {
            Some(item) => seen[id].push(item.split_once(' ').expect("two words").0.to_owned()),
            None => {
                assert_eq!(message["error"], Value::Null);
                ended += 1;
            }
        }
    }
    assert!(seen[1..].iter().all(|lines| *lines == ["0", "1", "2", "3", "4"]), "{seen:?}");
}

#[tokio::test]
async fn signalr_refusals_leave_the_connection_alive() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("sleep.wasm").await;
    let mut hub = SignalR::connect(&server).await;
    hub.stream("busy", json!(["sleep", "dev", "", 60_000])).await;
    assert_eq!(hub.message().await["item"], "asleep");
    let f = "FunctionHandler";
    for (message, says) in [
        (json!({ "type": 4, "invocationId": "1", "target": "Other", "arguments": [] }), "Unknown hub method 'Other'"),
        (json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["echo"] }), "2 to 7 arguments"),
        (json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["e cho", "dev"] }), "invalid_name"),
        (json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["nothing", "dev"] }), "function_not_found"),
        (
            json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["echo", "dev", "7.7"] }),
            "version_not_found",
        ),
        (
            json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["echo", "dev", "", "", "x"] }),
            "payloadEncrypted",
        ),
        (
            json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["echo", "dev", "", "", false, "com"] }),
            "type",
        ),
        (
            json!({ "type": 4, "invocationId": "1", "target": f, "arguments": ["echo", "dev", "", "", false, "exe"] }),
            "type_conflict",
        ),
        (json!({ "type": 4, "invocationId": "busy", "target": f, "arguments": ["echo", "dev"] }), "in use"),
        (json!({ "type": 1, "invocationId": "1", "target": f, "arguments": ["echo", "dev"] }), "stream it"),
        (json!({ "type": 99, "invocationId": "1" }), "type 99"),
    ] {
        hub.send(message.clone()).await;
        let answer = hub.message().await;
        assert_eq!((&answer["type"], &answer["invocationId"]), (&json!(3), &message["invocationId"]), "{message}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(says)), "{message}: {answer}");
    }
    // Neither answered nor a fault.
    for message in [
        json!({ "type": 6 }),
        json!({ "type": 1, "target": "x", "arguments": [] }),
        json!({ "type": 5, "invocationId": "9" }),
    ] {
        hub.send(message).await;
    }
    hub.send(json!({ "type": 5, "invocationId": "busy" })).await;
    let (_, end) = hub.streamed("busy").await;
    assert!(end["error"].as_str().is_some_and(|error| error.starts_with("cancelled: ")), "{end}");
    server.call_when_of("sleep", "cancelled").await;

    // What can't be read ends it, with why.
    hub.socket.send(format!("{{\"type\":{END}")).await;
    let close = hub.message().await;
    assert_eq!(close["type"], 7);
    assert!(close["error"].as_str().is_some_and(|error| error.contains("not valid")), "{close}");
    assert_eq!(hub.next().await, None);
}

#[tokio::test]
async fn signalr_handshakes() {
    let server = Server::start("[hub]\nping_seconds = 1\nhandshake_seconds = 1\n[limits]\npayload_bytes = 1000");
    // Cut by frames, and with what comes after it in one.
    let mut socket = Socket::connect(&server, "/functions").await;
    for part in [
        "{\"protocol\":",
        "\"json\",\"version\":1}",
        &format!("{END}{{\"type\":4,\"invocationId\":\"1\","),
        &format!("\"target\":\"no\"}}{END}"),
    ] {
        socket.send(part).await;
    }
    assert_eq!(socket.text().await.as_deref(), Some(&*format!("{{}}{END}")));
    assert!(socket.text().await.is_some_and(|text| text.contains("Unknown hub method")));
    // A ping comes when nothing else does.
    assert_eq!(socket.text().await, Some(format!("{{\"type\":6}}{END}")));
    // A client that closes the WebSocket is answered in kind.
    let mut left = Socket::connect(&server, "/functions").await;
    left.close().await;
    assert_eq!(left.closed().await.map(|(code, _)| code), Some(1000));
    // The client may close it in the protocol's way.
    socket.send(format!("{{\"type\":7}}{END}")).await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1000));

    let mut socket = Socket::connect(&server, "/functions").await;
    socket.send(format!("{{\"protocol\":\"messagepack\",\"version\":1}}{END}")).await;
    assert!(socket.text().await.is_some_and(|text| text.contains("'messagepack' is not supported")));
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1002));

    // Too much, at once or in frames that never end a record.
    let mut socket = Socket::connect(&server, "/functions").await;
    socket.send("x".repeat(100_000)).await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1009));
    let mut hub = SignalR::connect(&server).await;
    for _ in 0..10 {
        hub.socket.send("x".repeat(4000)).await;
    }
    assert_eq!(hub.message().await["type"], 7);
    assert_eq!(hub.socket.closed().await.map(|(code, _)| code), Some(1009));

    // Who says nothing is asked to leave.
    let mut socket = Socket::connect(&server, "/functions").await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test]
async fn plain_calls_share_a_connection() {
    let server = Server::start("");
    for fixture in ["print-lines.wasm", "ticks.wasm", "sleep.wasm", "exe-echo", "context.wasm"] {
        server.push(fixture).await;
    }
    let mut socket = Socket::connect(&server, "/functions").await;
    socket.send_json(json!({ "functionName": "print-lines", "lane": "dev", "requestId": "mine" })).await;
    let events = socket.events().await;
    let id = &events[0]["invocationId"];
    assert_eq!((&events[0]["event"], &events[0]["functionName"]), (&json!("started"), &json!("print-lines")));
    assert!(events.iter().all(|event| event["invocationId"] == *id && event["requestId"] == "mine"), "{events:?}");
    assert_eq!(sorted(&lines(&events)), sorted(&[&PRINTED[..], &["no end on stderr"]].concat()));
    assert!(events.iter().any(|event| event["stream"] == "stderr" && event["line"] == "a warning"));
    let numbers: Vec<_> = events.iter().filter_map(|event| event["number"].as_u64()).collect();
    assert_eq!(numbers, (0..11).collect::<Vec<_>>());
    let end = events.last().expect("an end");
    assert_eq!(
        (&end["event"], &end["status"], &end["result"]),
        (&json!("completed"), &json!("succeeded"), &Value::Null)
    );

    // Several at once; one of them is cancelled; the others go on.
    socket.send_json(json!({ "functionName": "sleep", "lane": "dev", "payload": 60_000, "requestId": "long" })).await;
    for request in ["x", "y"] {
        let payload = json!({ "count": 4, "everyMs": 20 });
        socket
            .send_json(json!({ "functionName": "ticks", "lane": "dev", "payload": payload, "requestId": request }))
            .await;
    }
    socket.send_json(json!({ "functionName": "nothing", "lane": "dev", "requestId": "none" })).await;
    let mut events = Vec::new();
    let mut ended = 0;
    while ended < 3 {
        let event = socket.json().await;
        ended += usize::from(event["event"] == "completed" || event["event"] == "failed");
        events.push(event);
    }
    let of = |request: &str| events.iter().filter(|event| event["requestId"] == request).cloned().collect::<Vec<_>>();
    assert_eq!((lines(&of("x")).len(), lines(&of("y")).len()), (4, 4));
    let none = of("none");
    assert_eq!(
        (&none[1]["event"], &none[1]["code"], &none[1]["status"]),
        (&json!("failed"), &json!("function_not_found"), &json!(404))
    );
    let long = of("long")[0]["invocationId"].as_str().expect("an id").to_owned();
    socket.send_json(json!({ "cancel": long })).await;
    let end = loop {
        let event = socket.json().await;
        if event["event"] == "failed" {
            break event;
        }
    };
    assert_eq!((&end["code"], &end["invocationId"]), (&json!("cancelled"), &json!(long)));
    assert_eq!(server.ended(&long).await["status"], "cancelled");
}

#[tokio::test]
async fn plain_refusals_leave_the_connection_alive() {
    let server = Server::start("[limits]\npayload_bytes = 1000\n[hub]\ncalls = 1");
    server.push("echo.wasm").await;
    server.push("sleep.wasm").await;
    let mut socket = Socket::connect(&server, "/functions").await;
    for (message, code) in [
        ("nonsense".to_owned(), "invalid_request"),
        ("[1]".into(), "invalid_request"),
        ("{}".into(), "invalid_request"),
        (json!({ "functionName": "a b", "lane": "dev" }).to_string(), "invalid_name"),
        (
            json!({ "functionName": "echo", "lane": "dev", "payload": "x".repeat(1001) }).to_string(),
            "payload_too_large",
        ),
        (json!({ "functionName": "echo", "lane": "dev", "requestId": "x".repeat(129) }).to_string(), "invalid_request"),
        (json!({ "cancel": "x" }).to_string(), "invalid_request"),
        (json!({ "cancel": "01a20662-0f45-7d10-a8d1-cbd4f4b00000" }).to_string(), "invalid_request"),
    ] {
        socket.send(&*message).await;
        let event = socket.json().await;
        assert_eq!((&event["event"], &event["code"]), (&json!("failed"), &json!(code)), "{message}: {event}");
    }
    // One too many on one connection.
    socket.send_json(json!({ "functionName": "sleep", "lane": "dev", "payload": 60_000 })).await;
    assert_eq!(socket.json().await["event"], "started");
    assert_eq!(socket.json().await["line"], "asleep");
    socket.send_json(json!({ "functionName": "echo", "lane": "dev", "payload": 1 })).await;
    assert_eq!(socket.json().await["code"], "at_capacity");
    // Who leaves takes along what it started over the hub, and nothing else.
    let other = server.start_call("sleep", json!(60_000)).await;
    drop(socket);
    let ended = server.call_when_of("sleep", "cancelled").await;
    assert_ne!(ended["invocationId"], json!(other));
    let (_, other) = server.get(&format!("/api/invocations/{other}")).await;
    assert_eq!(other["status"], "running");
}

#[tokio::test]
async fn tails_of_running_and_ended_calls_have_every_line_once() {
    let server = Server::start("");
    for fixture in ["ticks.wasm", "exe-ticks"] {
        server.push(fixture).await;
    }
    for name in ["ticks", "exe-ticks"] {
        let id = server.start_call(name, json!({ "count": 40, "everyMs": 10 })).await;
        let mut early = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        let mut events = vec![early.json().await];
        // Late ones, while it runs.
        let mut late = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        let mut from = Socket::connect(&server, &format!("/api/invocations/{id}/tail?from=7")).await;
        let gone = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        drop(gone);
        events.extend(early.events().await);
        assert_eq!(early.closed().await.map(|(code, _)| code), Some(1000));
        let call = server.ended(&id).await;
        assert_eq!(call["status"], "succeeded", "a tail that leaves takes nothing along");
        let wanted: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let mut after = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        for (events, wanted) in [
            (events, &wanted[..]),
            (late.events().await, &wanted[..]),
            (from.events().await, &wanted[7..]),
            (after.events().await, &wanted[..]),
        ] {
            let seen: Vec<_> = lines(&events).iter().map(|line| line.split_once(' ').expect("two words").0).collect();
            assert_eq!(seen, wanted);
            let numbers: Vec<_> = events.iter().filter_map(|event| event["number"].as_u64()).collect();
            assert_eq!(numbers.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
            assert_eq!(events.last().expect("an end")["event"], "completed");
        }
        // Server-sent events, from a line on, of a call that has ended.
        let sse = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
        let sse =
            sse.header("Accept", "text/event-stream").header("Last-Event-ID", "36").send().await.expect("an answer");
        let text = sse.text().await.expect("text");
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["37", "38", "39", "40"]);
        assert!(text.contains("id: 40\nevent: completed\ndata: "));
        // Who comes back after the end is told that there is no more.
        let sse = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
        let sse = sse.header("Accept", "text/event-stream").header("Last-Event-ID", "40").send().await;
        assert_eq!(sse.expect("an answer").status(), StatusCode::NO_CONTENT);
    }
    let tail = async |path: &str| Socket::try_connect(&server, path).await.err().map(|error| error.to_string());
    let unknown = "/api/invocations/01a20662-0f45-7d10-a8d1-cbd4f4b00000/tail";
    assert!(tail(unknown).await.is_some_and(|error| error.contains("404")));
    assert!(tail("/api/invocations/x/tail").await.is_some_and(|error| error.contains("400")));
    assert!(tail(&format!("{unknown}?from=x")).await.is_some_and(|error| error.contains("400")));
}

/// Whoever waits for the answer learns the id with it; others find it among those that run.
#[tokio::test]
async fn a_call_that_is_waited_for_can_be_followed() {
    let server = Server::start("");
    server.push("ticks.wasm").await;
    let call = json!({
        "functionName": "ticks", "lane": "dev", "callerId": "waiting", "payload": { "count": 3, "everyMs": 1, "pauseMs": 1500 }
    });
    let follow = async {
        let running = server.call_when_of("ticks", "running").await;
        assert_eq!(running["callerId"], "waiting");
        let id = running["invocationId"].as_str().expect("an id").to_owned();
        let mut tail = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        let first = tail.json().await;
        let (_, now) = server.get(&format!("/api/invocations/{id}")).await;
        assert_eq!((&first["number"], &now["status"]), (&json!(0), &json!("running")));
        let rest = tail.events().await;
        assert_eq!(lines(&rest).len(), 2);
        (id, rest.last().expect("an end")["result"].clone())
    };
    let ((_, answer), (id, result)) = tokio::join!(server.run_with(call), follow);
    assert_eq!((&answer["invocationId"], &answer["result"]), (&json!(id), &result));
}

#[tokio::test]
async fn lines_that_were_dropped_are_counted_alike_before_and_after_the_end() {
    let mut server = Server::start("[limits]\noutput_bytes = 2000");
    server.push("flood-output.wasm").await;
    let id = server.start_call("flood-output", json!(1000)).await;
    server.ended(&id).await;
    let mut last = None;
    for _ in 0..2 {
        let events = Socket::connect(&server, &format!("/api/invocations/{id}/tail?from=3")).await.events().await;
        let (skipped, first) = (events[0]["lines"].clone(), events[1]["number"].clone());
        assert_eq!(events[0]["event"], "skipped");
        assert_eq!(skipped.as_u64().map(|skipped| skipped + 3), first.as_u64());
        assert_eq!(lines(&events).last(), Some(&&*format!("{:099}", 999)));
        assert!(last.replace((skipped.clone(), first.clone())).is_none_or(|last| last == (skipped, first)));
        // The second time, a server that has only the database.
        server.stop();
        server.restart();
    }
}

#[tokio::test]
async fn a_call_of_another_server_is_followed_live() {
    // Two servers on one database and one store.
    let first = Server::start("");
    let share = format!(
        "[database]\nurl = \"sqlite:{0}/sharpfaas.db\"\n[store]\nurl = \"file:{0}/functionstore\"",
        first.folder.path().display()
    );
    let mut second = Server::start(&share);
    first.push("ticks.wasm").await;
    first.push("sleep.wasm").await;
    let id = first.start_call("ticks", json!({ "count": 30, "everyMs": 100 })).await;
    let mut tail = Socket::connect(&second, &format!("/api/invocations/{id}/tail")).await;
    let mut other = Socket::connect(&second, &format!("/api/invocations/{id}/tail")).await;
    let mut events = vec![tail.json().await];
    let (_, call) = first.get(&format!("/api/invocations/{id}")).await;
    assert_eq!(call["status"], "running", "the first line came while it ran");
    events.extend(tail.events().await);
    for events in [events, other.events().await] {
        let numbers: Vec<_> = events.iter().filter_map(|event| event["number"].as_u64()).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
        let end = events.last().expect("an end");
        assert_eq!((&end["event"], &end["result"]), (&json!("completed"), &json!(30)));
    }
    // A server that stops sends away who follows what runs elsewhere.
    let id = first.start_call("sleep", json!(60_000)).await;
    let mut tail = Socket::connect(&second, &format!("/api/invocations/{id}/tail")).await;
    assert_eq!(tail.json().await["line"], "asleep");
    let stopping = tokio::task::spawn_blocking(move || second.stop());
    assert_eq!(tail.closed().await.map(|(code, _)| code), Some(1001));
    assert!(stopping.await.expect("it stops") < Duration::from_secs(10));
}

#[tokio::test]
async fn a_stopping_server_lets_streams_end_and_sends_idle_connections_away() {
    let mut server = Server::start("");
    server.push("ticks.wasm").await;
    let mut idle = SignalR::connect(&server).await;
    let mut silent = Socket::connect(&server, "/functions").await;
    let mut busy = SignalR::connect(&server).await;
    busy.stream("1", json!(["ticks", "dev", "", { "count": 12, "everyMs": 100 }])).await;
    assert!(busy.message().await["item"].is_string());
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    let close = idle.message().await;
    assert_eq!((&close["type"], &close["allowReconnect"]), (&json!(7), &json!(true)));
    assert_eq!(idle.socket.closed().await.map(|(code, _)| code), Some(1001));
    assert_eq!(silent.closed().await.map(|(code, _)| code), Some(1001));
    let (items, end) = busy.streamed("1").await;
    assert_eq!((items.len(), &end["error"]), (11, &Value::Null));
    assert_eq!(busy.message().await["type"], 7);
    stopping.await.expect("it stops");
}
