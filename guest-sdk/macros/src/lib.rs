//! The attribute `#[sharpfaas::function]`. Use it through the crate `sharpfaas`, which documents it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{FnArg, ItemFn, Signature, Type, spanned::Spanned};

#[cfg(test)]
mod tests;

/// Makes a Rust function the one that this component exports: `execute` of the world
/// `sharpfaas:function/function`.
///
/// It stands on a free function with at most one argument:
///
/// ```text
/// #[sharpfaas::function]
/// fn handle(order: Order) -> Result<Receipt, sharpfaas::Error> { … }
/// ```
///
/// The crate `sharpfaas` says what argument and result may be. The function itself stays as it is, so
/// that tests can call it.
#[proc_macro_attribute]
pub fn function(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(arguments.into(), item.into()).into()
}

fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let message = "#[sharpfaas::function] stands on a free function with a body, as in \
                           `fn handle(order: Order) -> Result<Receipt, sharpfaas::Error> { … }`";
            let error = syn::Error::new(Span::call_site(), message).into_compile_error();
            return quote! { #item #error };
        }
    };
    match check(&arguments, &function.sig) {
        Ok(input) => {
            let export = export(&function.sig, &input);
            quote! { #function #export }
        }
        // The function is kept, so that the mistake is the only one that is reported.
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #function #error }
        }
    }
}

/// How the handler takes its payload.
enum Input<'a> {
    /// Not at all.
    Nothing,
    /// By value, whatever the type.
    Value(&'a Type),
    /// Lent: the type that is decoded stands behind the reference.
    Lent { span: Span, owned: TokenStream },
}

/// Everything that could not work is refused here, each with what would.
fn check<'a>(arguments: &TokenStream, signature: &'a Signature) -> syn::Result<Input<'a>> {
    let refuse = |span: Span, message: &str| Err(syn::Error::new(span, message));
    if !arguments.is_empty() {
        return refuse(arguments.span(), "#[sharpfaas::function] takes no arguments: write it as it stands here");
    }
    if let Some(token) = &signature.asyncness {
        return refuse(
            token.span(),
            "a function runs one call in an instance of its own, so nothing else could run while it awaits: \
             remove `async`",
        );
    }
    if let Some(token) = &signature.constness {
        return refuse(token.span(), "a handler prints, fails and reads its context: remove `const`");
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        return refuse(
            token.span(),
            "the host calls the handler with whatever it was sent, so it must be safe: remove `unsafe`",
        );
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi.span(), "the export is made by #[sharpfaas::function] itself: remove `extern`");
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return refuse(
            signature.generics.span(),
            "nothing would say which types these are when the host calls: use concrete types and elided lifetimes",
        );
    }
    if let Some(variadic) = &signature.variadic {
        return refuse(variadic.span(), "a handler takes at most one argument, the payload");
    }
    let mut inputs = signature.inputs.iter();
    let input = match (inputs.next(), inputs.next()) {
        (None, _) => Input::Nothing,
        (Some(FnArg::Receiver(receiver)), _) => {
            return refuse(receiver.span(), "the host has no `self` to call: put the attribute on a free function");
        }
        (Some(_), Some(second)) => {
            return refuse(
                second.span(),
                "a handler takes at most one argument, the payload: put all it needs into one struct that \
                 implements serde::Deserialize; the call's context comes from sharpfaas::invocation()",
            );
        }
        (Some(FnArg::Typed(argument)), None) => match &*argument.ty {
            Type::Reference(reference) => lent(reference)?,
            Type::ImplTrait(impl_trait) => {
                return refuse(impl_trait.span(), "nothing would say which type this is: name a concrete type");
            }
            other => Input::Value(other),
        },
    };
    if let syn::ReturnType::Type(_, result) = &signature.output {
        match &**result {
            Type::Never(never) => {
                return refuse(never.span(), "a handler must come to a result, if only `()`");
            }
            Type::Reference(reference) if reference.lifetime.as_ref().is_none_or(|name| name.ident != "static") => {
                return refuse(reference.span(), "a result outlives its payload: return an owned type, such as String");
            }
            _ => {}
        }
    }
    Ok(input)
}

/// `&str` is lent from a `String` and `&[T]` from a `Vec<T>`, because JSON text can seldom be borrowed
/// as it stands: one escape in it, and it must be unescaped into memory of its own.
fn lent(reference: &syn::TypeReference) -> syn::Result<Input<'_>> {
    if let Some(token) = &reference.mutability {
        return Err(syn::Error::new(token.span(), "the payload is the handler's own: take it by value"));
    }
    let owned = match &*reference.elem {
        Type::Path(path) if path.path.is_ident("str") => quote! { ::std::string::String },
        Type::Slice(slice) => {
            let element = &slice.elem;
            quote! { ::std::vec::Vec<#element> }
        }
        other => quote! { #other },
    };
    Ok(Input::Lent { span: reference.span(), owned })
}

/// The names in here begin with underscores, so that they hide none of the handler's own.
fn export(signature: &Signature, input: &Input<'_>) -> TokenStream {
    let name = &signature.ident;
    // Errors in these places point at the handler's types; names are still looked up as if written here.
    let at = |span: Span| span.resolved_at(Span::call_site());
    let call = match input {
        Input::Nothing => quote! { let __returned = #name(); },
        Input::Value(ty) => {
            let decode = quote_spanned! { at(ty.span()) => ::sharpfaas::__private::decode(&__payload)? };
            quote! { let __returned = #name(#decode); }
        }
        Input::Lent { span, owned } => {
            let decode = quote_spanned! { at(*span) => ::sharpfaas::__private::decode::<#owned>(&__payload)? };
            quote! { let __argument = #decode; let __returned = #name(&__argument); }
        }
    };
    let finish = quote_spanned! { at(signature.output.span()) => (&&&__kind).kind().finish(__returned) };
    quote! {
        const _: () = {
            struct __Function;

            impl ::sharpfaas::__private::Guest for __Function {
                fn execute(
                    __payload: ::std::string::String,
                ) -> ::core::result::Result<::std::string::String, ::std::string::String> {
                    #[allow(unused_imports)]
                    use ::sharpfaas::__private::{ViaDisplay as _, ViaError as _, ViaValue as _};
                    ::sharpfaas::__private::run(move || {
                        #call
                        let __kind = ::sharpfaas::__private::Returned::of(&__returned);
                        #finish
                    })
                }
            }

            #[cfg(target_family = "wasm")]
            ::sharpfaas::__private::export!(__Function with_types_in ::sharpfaas::__private);

            // Tests run on the machine that builds, where there is no host to export to: the handler
            // counts as used there too.
            #[cfg(not(target_family = "wasm"))]
            const _: fn(
                ::std::string::String,
            ) -> ::core::result::Result<::std::string::String, ::std::string::String> =
                <__Function as ::sharpfaas::__private::Guest>::execute;
        };
    }
}
