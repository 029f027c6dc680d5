//! Invocations.

use chrono::TimeDelta;
use sharpfaas_host::{
    database::{Database, InvocationQuery, InvocationRow, Request},
    function::{CallerId, InvocationId, Selector, Status},
};
use uuid::Uuid;

use super::{ended, lane, name, now, running};

pub async fn rows_come_back_as_they_went(database: &Database) {
    let row = running("f");
    let mut bare = InvocationRow {
        caller_id: None,
        selector: Selector::Latest,
        version: None,
        kind: None,
        status: Status::Queued,
        output: vec![],
        output_skipped: 0,
        started_at: None,
        ..running("g")
    };
    database.save(&[row.clone(), bare.clone()]).await.expect("saved");
    assert_eq!(database.invocation(row.id).await, Ok(Some(row.clone())));
    assert_eq!(database.invocation(bare.id).await, Ok(Some(bare.clone())));
    assert_eq!(database.invocation(InvocationId::generate()).await, Ok(None));

    let row = ended(&row);
    // What one of the databases can't hold as text.
    bare = InvocationRow {
        status: Status::TimedOut,
        error_code: Some("deadline_exceeded".into()),
        detail: Some("a\0b".into()),
        result: Some("\0'\"$1;--".into()),
        ..bare
    };
    database.save(&[row.clone(), bare.clone()]).await.expect("saved");
    assert_eq!(database.invocation(row.id).await, Ok(Some(row)));
    bare.detail = Some("a\u{fffd}b".into());
    bare.result = Some("\u{fffd}'\"$1;--".into());
    assert_eq!(database.invocation(bare.id).await, Ok(Some(bare)));
    database.save(&[]).await.expect("nothing is no error");
}

pub async fn what_has_ended_stays_so(database: &Database) {
    let row = running("f");
    let end = ended(&row);
    database.save(std::slice::from_ref(&row)).await.expect("saved");
    database.save(std::slice::from_ref(&end)).await.expect("saved");
    database.save(std::slice::from_ref(&row)).await.expect("an answer that got lost makes writes come again");
    assert_eq!(database.invocation(row.id).await, Ok(Some(end)));

    // In one batch, in any order.
    let row = running("f");
    let end = ended(&row);
    database.save(&[row.clone(), end.clone(), row.clone()]).await.expect("saved");
    assert_eq!(database.invocation(row.id).await, Ok(Some(end)));
}

pub async fn a_batch_of_any_size_is_written(database: &Database) {
    let mut rows: Vec<_> = (0..1201).map(|_| ended(&running("f"))).collect();
    // More than goes into one statement, by rows and by bytes.
    for row in rows.iter_mut().skip(600).take(4) {
        row.result = Some("x".repeat(3 * 1024 * 1024).into());
    }
    database.save(&rows).await.expect("saved");
    for row in [&rows[0], &rows[499], &rows[500], &rows[601], &rows[1200]] {
        assert_eq!(database.invocation(row.id).await.as_ref(), Ok(&Some(row.clone())));
    }
    let all = InvocationQuery { limit: 10_000, ..InvocationQuery::default() };
    assert_eq!(database.invocations(&all).await.map(|rows| rows.len()), Ok(1201));
}

pub async fn pages_go_back_in_time(database: &Database) {
    let mut rows = vec![];
    for i in 0..60 {
        let mut row = running(if i % 2 == 0 { "even" } else { "odd" });
        row.lane = lane(if i % 3 == 0 { "production" } else { "dev" });
        row.caller_id = CallerId::parse(&format!("caller {}", i % 5)).ok();
        rows.push(if i < 50 { ended(&row) } else { row });
    }
    database.save(&rows).await.expect("saved");
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));

    let queries = [
        InvocationQuery::default(),
        InvocationQuery { function: Some(name("even")), ..InvocationQuery::default() },
        InvocationQuery { lane: Some(lane("production")), ..InvocationQuery::default() },
        InvocationQuery { caller_id: CallerId::parse("caller 3").ok(), ..InvocationQuery::default() },
        InvocationQuery { status: Some(Status::Running), ..InvocationQuery::default() },
        InvocationQuery {
            function: Some(name("odd")),
            lane: Some(lane("dev")),
            caller_id: CallerId::parse("caller 1").ok(),
            status: Some(Status::Succeeded),
            ..InvocationQuery::default()
        },
        InvocationQuery { function: Some(name("none")), ..InvocationQuery::default() },
    ];
    for query in queries {
        let expected: Vec<_> = rows
            .iter()
            .filter(|row| query.function.as_ref().is_none_or(|it| *it == row.name))
            .filter(|row| query.lane.as_ref().is_none_or(|it| *it == row.lane))
            .filter(|row| query.caller_id.is_none() || query.caller_id == row.caller_id)
            .filter(|row| query.status.is_none_or(|it| it == row.status))
            .cloned()
            .collect();
        let mut seen = vec![];
        loop {
            let before = seen.last().map(|row: &InvocationRow| row.id);
            let page =
                database.invocations(&InvocationQuery { before, limit: 7, ..query.clone() }).await.expect("a page");
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, expected, "{query:?}");
    }
}

pub async fn old_rows_go_in_small_batches(database: &Database) {
    let old = now() - TimeDelta::days(40);
    let accepted = |row: InvocationRow| {
        let id = Uuid::from_u128(InvocationId::first_at(old).0.as_u128() | (row.id.0.as_u128() & u128::from(u64::MAX)));
        InvocationRow { id: InvocationId(id), created_at: old, ..row }
    };
    let mut rows: Vec<_> =
        (0..25).map(|_| accepted(InvocationRow { ended_at: Some(old), ..ended(&running("old")) })).collect();
    // Its server never came back to end it.
    rows.push(accepted(running("lost")));
    // Accepted long ago and ended just now.
    rows.push(accepted(ended(&running("kept"))));
    rows.push(running("kept"));
    database.save(&rows).await.expect("saved");
    let limit = now() - TimeDelta::days(30);
    assert_eq!(database.delete_ended_before(limit, 20).await, Ok(20));
    assert_eq!(database.delete_ended_before(limit, 20).await, Ok(6));
    assert_eq!(database.delete_ended_before(limit, 20).await, Ok(0));
    let left = database.invocations(&InvocationQuery { limit: 100, ..InvocationQuery::default() }).await;
    assert_eq!(left.map(|rows| rows.iter().map(|row| row.name.to_string()).collect()), Ok(vec!["kept".to_owned(); 2]));
}

pub async fn a_node_that_comes_back_ends_what_it_left(database: &Database) {
    let queued = InvocationRow { status: Status::Queued, ..running("f") };
    let elsewhere = InvocationRow { node: "elsewhere".into(), ..running("f") };
    let done = ended(&running("f"));
    let rows = [running("f"), queued, elsewhere, done];
    database.save(&rows).await.expect("saved");
    assert_eq!(database.abandon("here").await, Ok(2));
    assert_eq!(database.abandon("here").await, Ok(0));
    for row in &rows[..2] {
        let row = database.invocation(row.id).await.expect("an answer").expect("a row");
        assert_eq!((row.status, row.error_code.as_deref()), (Status::Failed, Some("internal")));
        assert_eq!(row.detail.as_deref(), Some("the server stopped while it ran"));
        assert!(row.ended_at.is_some());
    }
    for row in &rows[2..] {
        assert_eq!(database.invocation(row.id).await, Ok(Some(row.clone())));
    }
}

pub async fn cancelling_reaches_the_node_that_runs_it(database: &Database) {
    let (row, other, elsewhere) =
        (running("f"), running("f"), InvocationRow { node: "elsewhere".into(), ..running("f") });
    database.save(&[row.clone(), other.clone(), elsewhere.clone()]).await.expect("saved");
    assert_eq!(database.requests("here").await, Ok(vec![]));
    assert_eq!(database.request_cancel(row.id).await, Ok(true));
    assert_eq!(database.request_cancel(elsewhere.id).await, Ok(true));
    assert_eq!(database.requests("here").await, Ok(vec![Request { id: row.id, cancel: true, watched: None }]));
    // Another write of the row does not lose the request, and its end answers it.
    database.save(std::slice::from_ref(&row)).await.expect("saved");
    assert_eq!(database.requests("here").await, Ok(vec![Request { id: row.id, cancel: true, watched: None }]));
    database.save(&[ended(&row)]).await.expect("saved");
    assert_eq!(database.requests("here").await, Ok(vec![]));
    assert_eq!(database.request_cancel(row.id).await, Ok(false));
    assert_eq!(database.request_cancel(InvocationId::generate()).await, Ok(false));
}

pub async fn writers_do_not_hinder_each_other(database: &Database) {
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let database = database.clone();
            tokio::spawn(async move {
                for i in 0..8 {
                    let rows: Vec<_> = (0..20).map(|_| running("f")).collect();
                    database.save(&rows).await?;
                    database.insert_versions([&super::pushed("f", &format!("lane{writer}"), 1, i)]).await?;
                    database.save(&rows.iter().map(ended).collect::<Vec<_>>()).await?;
                }
                Ok::<_, sharpfaas_host::database::DatabaseError>(())
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.expect("no panic"), Ok(()));
    }
    let succeeded = InvocationQuery { status: Some(Status::Succeeded), limit: 10_000, ..InvocationQuery::default() };
    assert_eq!(database.invocations(&succeeded).await.map(|rows| rows.len()), Ok(12 * 8 * 20));
    assert_eq!(database.count_versions().await, Ok(12 * 8));
}
