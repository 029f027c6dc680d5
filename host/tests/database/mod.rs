//! The queries, the same on every database. `each_database_test!` makes the tests of one kind of database
//! from the checks of `catalog` and `history`.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use sharpfaas_host::{
    config::DatabaseConfig,
    database::{Database, InvocationRow},
    function::{
        Asks, CallerId, Digest, FunctionName, FunctionRef, FunctionType, InvocationId, Lane, Location, OutputLine,
        PushId, Selector, Shape, Status, Stream, TokenName, Usage, Version,
    },
};

pub mod audit;
pub mod catalog;
pub mod history;
mod sqlite;

/// Makes a test of each check, on the database that `$make` gives; where it gives none, the test is not run.
macro_rules! each_database_test {
    ($make:path) => {
        crate::database::each_database_test! { $make:
            catalog::the_newest_is_by_number,
            catalog::inserting_again_changes_nothing_and_another_push_replaces,
            catalog::thousands_of_versions_go_in_at_once,
            catalog::functions_come_in_pages,
            catalog::namesakes_differ_in_case_alone,
            catalog::folders_and_lanes_are_known,
            history::rows_come_back_as_they_went,
            history::what_has_ended_stays_so,
            history::a_batch_of_any_size_is_written,
            history::pages_go_back_in_time,
            history::old_rows_go_in_small_batches,
            history::a_node_that_comes_back_ends_what_it_left,
            history::cancelling_reaches_the_node_that_runs_it,
            history::writers_do_not_hinder_each_other,
        }
    };
    ($make:path: $($module:ident :: $check:ident,)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                if let Some(fixture) = $make().await {
                    crate::database::$module::$check(&fixture.database).await;
                }
            }
        )*
    };
}
pub(crate) use each_database_test;

pub fn config(url: String) -> DatabaseConfig {
    DatabaseConfig { url, ..DatabaseConfig::default() }
}

pub fn name(text: &str) -> FunctionName {
    text.parse().expect("a name")
}

pub fn lane(text: &str) -> Lane {
    text.parse().expect("a lane")
}

pub fn version(major: u32, minor: u32) -> Version {
    Version { major, minor }
}

/// Now, as exactly as it is kept.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// A version that a push made just now.
pub fn pushed(function: &str, to: &str, major: u32, minor: u32) -> FunctionRef {
    FunctionRef {
        location: Location { lane: lane(to), version: version(major, minor), name: name(function) },
        kind: FunctionType::Dll,
        entry: "function.wasm".parse().expect("an entry"),
        shape: Some(Shape::Http),
        asks: Some(Box::new(Asks { stores: vec!["default".into()], ..Asks::default() })),
        sha256: Digest::of(format!("{function} {to} {major}.{minor}").as_bytes()),
        size: 12_345_678_901,
        push_id: PushId::generate(),
        pushed_at: now(),
        pushed_by: Some("somebody".into()),
    }
}

/// A call that is at work on node `here`.
pub fn running(function: &str) -> InvocationRow {
    InvocationRow {
        id: InvocationId::generate(),
        caller_id: Some(CallerId::parse("caller-1").expect("a caller")),
        name: name(function),
        lane: lane("dev"),
        selector: Selector::Major(1),
        version: Some(version(1, 10)),
        kind: Some(FunctionType::Exe),
        status: Status::Running,
        error_code: None,
        detail: None,
        result: None,
        output: vec![Arc::new(OutputLine { stream: Stream::Stderr, line: "grüezi \u{0}".into(), at: now() })],
        output_skipped: 7,
        node: "here".into(),
        cancel_requested: false,
        created_at: now(),
        started_at: Some(now()),
        ended_at: None,
        elapsed_us: None,
        usage: Usage::default(),
        token: Some(TokenName::parse("ci").expect("a token")),
    }
}

/// The same call, ended well.
pub fn ended(row: &InvocationRow) -> InvocationRow {
    InvocationRow {
        status: Status::Succeeded,
        result: Some(r#"{"sum":3}"#.into()),
        ended_at: Some(now()),
        elapsed_us: Some(1234),
        usage: Usage { memory_peak_bytes: Some(5 << 30), cpu_us: Some(1200) },
        ..row.clone()
    }
}

/// A database, and what goes when it does.
pub struct Fixture<T> {
    pub database: Database,
    #[expect(dead_code, reason = "held for its Drop")]
    pub guard: T,
}
