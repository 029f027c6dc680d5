//! Printing, in one call of the host a line.

use std::fmt;

/// Which stream.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Output {
    Stdout,
    Stderr,
}

/// As [`std::println!`], but in one call of the host where the standard library takes several: a function
/// that prints a line or two is noticeably faster by it. What it prints is the same.
///
/// ```
/// use sharpfaas::println;
///
/// println!("{} of {} done", 1, 2);
/// ```
///
/// It prints on `wasm32-unknown-unknown` too, where [`std::println!`] does not.
///
/// Each call prints a whole line. What [`std::print!`] began to print and has not ended yet comes after it.
#[macro_export]
macro_rules! println {
    () => { $crate::__private::print_line($crate::__private::Output::Stdout, ::core::format_args!("")) };
    ($($text:tt)+) => {
        $crate::__private::print_line($crate::__private::Output::Stdout, ::core::format_args!($($text)+))
    };
}

/// As [`std::eprintln!`], in one call of the host: see [`println!`].
#[macro_export]
macro_rules! eprintln {
    () => { $crate::__private::print_line($crate::__private::Output::Stderr, ::core::format_args!("")) };
    ($($text:tt)+) => {
        $crate::__private::print_line($crate::__private::Output::Stderr, ::core::format_args!($($text)+))
    };
}

#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub fn print_line(to: Output, text: fmt::Arguments<'_>) {
    use std::fmt::Write as _;

    use crate::bindings::sharpfaas::function::console;
    let mut line = String::with_capacity(text.as_str().map_or(80, str::len) + 1);
    // A string takes whatever is written to it; an error is one of the value's own, which shows as far as it came.
    let _ = line.write_fmt(text);
    line.push('\n');
    let to = match to {
        Output::Stdout => console::Output::Stdout,
        Output::Stderr => console::Output::Stderr,
    };
    console::print(to, line.as_bytes());
}

/// In tests, which run where there is no host.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
pub fn print_line(to: Output, text: fmt::Arguments<'_>) {
    match to {
        Output::Stdout => std::println!("{text}"),
        Output::Stderr => std::eprintln!("{text}"),
    }
}
