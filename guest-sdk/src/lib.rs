//! Write functions for the sharpfaas function host in Rust.
//!
//! A function is a Rust function with an attribute on it. Its argument is decoded from the JSON payload
//! of the call by serde, its result is encoded as JSON, and what it prints is the call's console
//! output, which callers can watch live:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sharpfaas::Error;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     article: String,
//!     quantity: u32,
//!     price: String,
//! }
//!
//! #[derive(Debug, PartialEq, Serialize)]
//! struct Receipt {
//!     total: f64,
//! }
//!
//! #[sharpfaas::function]
//! fn handle(order: Order) -> Result<Receipt, Error> {
//!     println!("{} × {}", order.quantity, order.article);
//!     let price: f64 = order.price.parse()?;
//!     Ok(Receipt { total: price * f64::from(order.quantity) })
//! }
//!
//! // The function stays an ordinary one, so tests can call it.
//! let order = Order { article: "tea".into(), quantity: 3, price: "2.50".into() };
//! assert_eq!(handle(order).unwrap(), Receipt { total: 7.5 });
//! ```
//!
//! # Build and run
//!
//! A function is a library crate of type `cdylib`, built for `wasm32-wasip2`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! sharpfaas = { path = "…/guest-sdk" }
//! serde = { version = "1", features = ["derive"] }
//!
//! # Small and fast: a component is sent to every server that runs it, and compiled there.
//! [profile.release]
//! opt-level = 3
//! lto = "fat"
//! codegen-units = 1
//! panic = "abort"
//! strip = true
//! ```
//!
//! ```console
//! $ rustup target add wasm32-wasip2
//! $ cargo build --release --target wasm32-wasip2
//! $ sharpfaas push target/wasm32-wasip2/release/receipt.wasm
//! $ sharpfaas run receipt '{"article": "tea", "quantity": 3, "price": "2.50"}'
//! {"total":7.5}
//! ```
//!
//! A function that needs neither clocks nor random numbers, and prints by this crate's [`println!`], can be built for
//! `wasm32-unknown-unknown` as well, which makes a smaller one that is quicker to call. There this crate sets the global
//! allocator, unless its feature `allocator` is off.
//!
//! # The argument
//!
//! | the handler takes | it gets |
//! |---|---|
//! | any [`serde::Deserialize`] | the JSON payload, decoded |
//! | `String` or `&str` | the text of a JSON string: the payload `"Ada"`, quotes included, is `Ada` |
//! | `&T`, `&[T]` | the same as `T` and `Vec<T>`, lent |
//! | [`Text`] | the payload as it came, whatever it is |
//! | nothing | nothing; the payload is ignored |
//!
//! An empty payload counts as `null`, so a handler that takes an `Option` can be called with none. A
//! payload that does not fit ends the call with an error that names the path and the line, such as
//! `the payload does not fit at lines[3].price: invalid type: string "x", expected f64 at line 5 column 17`.
//!
//! # The result
//!
//! Any [`serde::Serialize`], encoded as JSON (`()` is `null`), or a [`Text`], which goes out as it is;
//! either of them as it stands or in a `Result`. The error of a `Result` can be anything that
//! implements [`Display`](std::fmt::Display): its text is what the caller reads. [`Error`] takes any
//! error by `?` and tells its causes as well; so does any error that implements
//! [`std::error::Error`].
//!
//! A panic prints its message on standard error and ends the call as a crash (`function_trapped`);
//! for what can be expected to go wrong, return an error.
//!
//! # Printing
//!
//! What a handler prints, by [`std::println!`] or otherwise, is the call's console. [`println!`] and
//! [`eprintln!`] of this crate print the same with less work.
//!
//! # State
//!
//! Each call runs in an instance of its own: statics hold nothing from one call to the next, and no
//! call can see another's memory.
//!
//! # The context
//!
//! [`invocation`] tells which call this is: its id, who calls, the lane and version that run, the
//! call's further parameters and how much time is left.

mod console;
mod error;
mod invocation;
#[cfg(any(test, all(target_family = "wasm", target_os = "unknown", feature = "allocator")))]
mod memory;
mod payload;

pub use error::Error;
pub use invocation::{Invocation, invocation};
pub use payload::Text;
pub use sharpfaas_macros::function;

/// What the attribute's code stands on. Not for use by hand: it changes without notice.
#[doc(hidden)]
pub mod __private;

/// The bindings made from `wit/function.wit`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "function",
        pub_export_macro: true,
        export_macro_name: "export",
    });
}
