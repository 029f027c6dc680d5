//! A component that takes the compiler a while, as text.

use std::fmt::Write as _;

/// A component of about so many bytes, half of them code and half data: many functions of some arithmetic, loads
/// and stores, each of which calls another. Different ones for different `seed`s.
pub fn component(bytes: usize, seed: usize) -> String {
    const BODY_BYTES: usize = 235;
    let functions = bytes / 2 / BODY_BYTES;
    let mut core = String::from("(memory (export \"memory\") 300)\n");
    for at in 0..functions {
        let _ = write!(core, "(func $f{at} (param $x i32) (result i32) (local $y i32) (local.set $y (local.get $x))");
        for step in 0..12 {
            let constant = (at * 31 + step * 17 + seed) % 100_000 + 70_000;
            let _ = write!(
                core,
                "(local.set $y (i32.xor (i32.mul (local.get $y) (i32.const {constant})) (i32.load offset={constant} (i32.and (local.get $y) (i32.const 65532)))))"
            );
        }
        match at {
            0 => core.push_str("(local.get $y))\n"),
            _ => {
                let _ = writeln!(core, "(call $f{} (local.get $y)))", at * 7 % at.max(1));
            }
        }
    }
    let data = "\\01\\fe%9aZ".repeat(bytes / 2 / 6);
    format!(
        r#"(component
            (core module $m {core}
                (global $next (mut i32) (i32.const 17000000))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (global.get $next))
                    (global.set $next (i32.add (global.get $next) (local.get 3)))
                    (local.get $at))
                (func (export "run") (param $p i32) (param $n i32) (result i32)
                    (drop (call $f{last} (local.get $n)))
                    (i32.store (i32.const 100) (i32.const 0))
                    (i32.store (i32.const 104) (local.get $p))
                    (i32.store (i32.const 108) (local.get $n))
                    (i32.const 100))
                (data (i32.const 4096) "{data}"))
            (core instance $i (instantiate $m))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            (alias core export $i "run" (core func $run))
            (func (export "execute") (param "payload" string) (result (result string (error string)))
                (canon lift (core func $run) (memory $memory) (realloc $realloc))))"#,
        last = functions - 1,
    )
}
