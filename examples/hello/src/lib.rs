//! Greets whom it is told to: `{"name": "Ada"}` in, `{"greeting": "Hello, Ada!"}` out.

use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Guest {
    #[serde(default = "anyone")]
    name: String,
}

fn anyone() -> String {
    "world".into()
}

#[derive(Serialize)]
struct Welcome {
    greeting: String,
}

#[sharpfaas::function]
fn hello(guest: Guest) -> Welcome {
    sharpfaas::println!("greeting {}", guest.name);
    Welcome { greeting: format!("Hello, {}!", guest.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        assert_eq!(hello(Guest { name: "Ada".into() }).greeting, "Hello, Ada!");
    }
}
