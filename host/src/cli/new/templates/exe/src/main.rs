//! Greets whom it is told to: `{"name": "Ada"}` in, `{"greeting": "Hello, Ada!"}` out.
//!
//! The payload is on standard input. Standard output is the result, standard error the console, and the exit code says
//! whether it went well.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Guest {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Welcome {
    greeting: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let guest: Guest = serde_json::from_reader(std::io::stdin().lock())?;
    eprintln!("greeting {}", guest.name);
    Ok(serde_json::to_string(&greet(&guest)?)?)
}

fn greet(guest: &Guest) -> Result<Welcome, String> {
    if guest.name.is_empty() {
        return Err("a guest needs a name".into());
    }
    Ok(Welcome { greeting: format!("Hello, {}!", guest.name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let welcome = greet(&Guest { name: "Ada".into() }).unwrap();
        assert_eq!(welcome, Welcome { greeting: "Hello, Ada!".into() });
    }
}
