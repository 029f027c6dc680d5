//! The audit.

use sea_orm::ConnectionTrait;
use sharpfaas_host::database::{AuditEntry, AuditQuery, Database};

/// Not even who has the database's password changes an entry by a slip: the database at `url` refuses.
pub async fn entries_are_written_once(database: &Database, url: &str) {
    let raw = sea_orm::Database::connect(url).await.expect("connected");
    let entry = AuditEntry::new(Some("ci"), None, "push", "dev/f");
    database.audited(vec![entry]).await.expect("written");
    let all = AuditQuery { limit: 10, ..AuditQuery::default() };
    let kept = database.audit(&all).await.expect("there");
    assert_eq!(kept.len(), 1);
    for statement in ["UPDATE audit SET actor = 'another'", "DELETE FROM audit", "DELETE FROM audit WHERE actor = 'ci'"]
    {
        let error = raw.execute_unprepared(statement).await.expect_err(statement).to_string();
        assert!(error.contains("the audit is append-only"), "{statement}: {error}");
    }
    assert_eq!(database.audit(&all).await, Ok(kept));
}
