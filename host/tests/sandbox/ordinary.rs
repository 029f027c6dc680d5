//! What means well runs as ever.

use std::process::Command;

use super::*;

const SHELL: &[u8] = b"#!/bin/sh
set -e
echo words > file && mkdir folder && mv file folder/ && grep -c words folder/file >&2
printf '%s %s\\n' \"$1\" \"$(cat \"$SHARPFAAS_PACKAGE/lib/data\" | tr a-z A-Z)\" | tee /dev/stderr > /dev/stdout
";

const PYTHON: &[u8] = b"#!/usr/bin/env python3
import json, os, ssl, subprocess, sys, tempfile, threading, time
payload = json.load(sys.stdin)
with tempfile.NamedTemporaryFile('w+') as file:
    file.write('kept'); file.seek(0)
    kept = file.read()
worker = threading.Thread(target=lambda: payload.append(os.cpu_count() > 0)); worker.start(); worker.join()
ran = subprocess.run(['id', '-u'], capture_output=True, text=True, check=True).stdout.strip() == str(os.getuid())
print(json.dumps([payload, kept, ran, time.strftime('%Y') >= '2020', os.path.dirname(__file__) == os.environ['SHARPFAAS_PACKAGE']]))
";

async fn runs(server: &Server, name: &str, files: &[(&str, &[u8])], payload: Value) -> Value {
    let query = format!("functionName={name}&lane=dev&type=exe&entryFileName={}", files[0].0);
    let (status, body) = server.push_zip(&query, zip(files)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    result(server, name, payload).await
}

#[tokio::test]
async fn scripts_and_programs_of_all_kinds() {
    for server in servers("") {
        let found = runs(&server, "shell", &[("main.sh", SHELL), ("lib/data", b"beside")], json!("hello")).await;
        assert_eq!(found, json!("hello BESIDE"));

        if Path::new("/usr/bin/python3").exists() {
            let found = runs(&server, "python", &[("main.py", PYTHON)], json!([1, "two"])).await;
            assert_eq!(found, json!([[1, "two", true], "kept", true, true, true]));
        } else {
            println!("there is no /usr/bin/python3: no Python script is run");
        }

        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("main.c");
        fs::write(&source, "#include <stdio.h>\nint main(int c, char **v) { return printf(\"%s\", v[1]) < 0; }")
            .expect("written");
        for (name, how) in [("static", "-static"), ("dynamic", "-pie")] {
            let program = folder.path().join(name);
            let built = Command::new("cc").arg(how).arg("-o").arg(&program).arg(&source).status().expect("there is cc");
            assert!(built.success(), "{how}");
            let bytes = fs::read(&program).expect("it was made");
            assert_eq!(runs(&server, name, &[("main", &bytes)], json!("one")).await, json!("one"), "{name}");
        }
    }
}

#[tokio::test]
async fn the_example_runs() {
    for server in servers("") {
        let found =
            runs(&server, "words", &[("main", &example("word-count-native"))], json!({ "text": "one two two" })).await;
        assert!(found.to_string().contains("two"), "{found}");
    }
}
