//! What the attribute says to those who use it wrongly.

use super::*;

fn refused(item: TokenStream, expected: &str) {
    let text = expand(TokenStream::new(), item.clone()).to_string();
    assert!(text.contains("compile_error"), "{item} was taken");
    assert!(text.contains(expected), "for {item} expected {expected:?} in {text}");
}

fn taken(item: TokenStream) -> String {
    let text = expand(TokenStream::new(), item.clone()).to_string();
    assert!(!text.contains("compile_error"), "{item}: {text}");
    text
}

#[test]
fn what_cannot_work_is_refused_with_what_would() {
    refused(quote! { async fn f(a: A) -> B { B } }, "remove `async`");
    refused(quote! { const fn f(a: A) -> B { B } }, "remove `const`");
    refused(quote! { unsafe fn f(a: A) -> B { B } }, "remove `unsafe`");
    refused(quote! { extern "C" fn f(a: A) -> B { B } }, "remove `extern`");
    refused(quote! { fn f(a: A, b: B) -> C { C } }, "into one struct");
    refused(quote! { fn f<T>(a: T) -> C { C } }, "concrete types");
    refused(quote! { fn f<'a>(a: &'a str) -> C { C } }, "elided lifetimes");
    refused(quote! { fn f(a: impl Read) -> C { C } }, "concrete type");
    refused(quote! { fn f(&self) -> C { C } }, "free function");
    refused(quote! { fn f(a: &mut A) -> C { C } }, "by value");
    refused(quote! { fn f(a: &str) -> &str { a } }, "owned type");
    refused(quote! { fn f(a: A) -> ! { loop {} } }, "come to a result");
    refused(quote! { struct NotAFunction; }, "stands on a free function");
    let with_arguments = expand(quote! { name = "x" }, quote! { fn f() {} }).to_string();
    assert!(with_arguments.contains("takes no arguments"), "{with_arguments}");
}

#[test]
fn a_refused_function_is_kept_so_that_its_mistake_is_the_only_one() {
    let text = expand(TokenStream::new(), quote! { async fn handle(a: A) -> B { B } }).to_string();
    assert!(text.contains("async fn handle"), "{text}");
}

#[test]
fn handlers_are_called_as_they_take_their_payload() {
    assert!(taken(quote! { fn f() {} }).contains("f ()"));
    assert!(taken(quote! { fn f(a: Order) -> Result<B, C> { x } }).contains("decode (& __payload)"));
    assert!(taken(quote! { fn f(a: &str) {} }).contains("decode :: < :: std :: string :: String >"));
    assert!(taken(quote! { fn f(a: &[u8]) {} }).contains("Vec < u8 >"));
    assert!(taken(quote! { fn f(a: &Order) {} }).contains("decode :: < Order >"));
    taken(quote! { pub(crate) fn f(Order { id, .. }: Order) -> &'static str { "x" } });
}
