//! Greets whom it is told to: `{"name": "Ada"}` in, `{"greeting": "Hello, Ada!"}` out.

use serde::{Deserialize, Serialize};
use sharpfaas::Error;

#[derive(Deserialize)]
struct Guest {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Welcome {
    greeting: String,
}

#[sharpfaas::function]
fn handle(guest: Guest) -> Result<Welcome, Error> {
    if guest.name.is_empty() {
        return Err(Error::new("a guest needs a name"));
    }
    sharpfaas::println!("greeting {}", guest.name);
    Ok(Welcome { greeting: format!("Hello, {}!", guest.name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let welcome = handle(Guest { name: "Ada".into() }).unwrap();
        assert_eq!(welcome, Welcome { greeting: "Hello, Ada!".into() });
    }
}
