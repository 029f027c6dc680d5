//! Taking jobs to run: any number in one statement, and none that another server takes.

use std::time::Duration;

use sea_orm::{DbErr, QueryResult, Value};
use serde_json::json;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, unsigned},
    function::{
        CallerId, EntryName, FunctionName, FunctionType, InvocationId, JobId, JobState, Lane, QueueName, Selector,
        TokenName, Version,
    },
};

use super::{
    dialect::{Dialect, Type, all, run},
    rows::{get, id, parsed, word},
};

/// The advisory lock of claims that look at keys: any number, the same for all servers.
const MUTEX_LOCK: i64 = 0x0073_6661_6d75_7478;

/// One that waits and has a key, wherever it stands.
const KEYED: &str = "SELECT 1 AS one FROM jobs WHERE state = 'enqueued' AND mutex_key IS NOT NULL LIMIT 1";

/// Among how many of those that are first in line a claim that took some looks whether one has a key.
const LINE: &str = "1000";

/// A part of the waiting jobs, and how many of it may be taken.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    /// Of these queues only.
    pub queues: Option<Vec<QueueName>>,
    /// Of none of these.
    pub except_queues: Vec<QueueName>,
    /// Of this function only.
    pub function: Option<FunctionName>,
    /// Of none of these.
    pub except_functions: Vec<FunctionName>,
    /// Only those whose claim holds nothing up before they begin: without a key, and with attempts left after this one.
    pub ahead: bool,
    /// At most so many.
    pub most: usize,
}

/// The version that a selector means now.
#[derive(Debug, Clone)]
pub struct Pin {
    /// The function.
    pub name: FunctionName,
    /// Its lane.
    pub lane: Lane,
    /// As it was asked for.
    pub selector: Selector,
    /// What it means.
    pub version: Version,
}

/// What a server asks for.
#[derive(Debug)]
pub struct Claim<'a> {
    /// Who it is, in this life.
    pub server: Uuid,
    /// Its name in history.
    pub node: &'a str,
    /// How many it can run now: at most so many of what is not claimed ahead.
    pub places: usize,
    /// How many it takes in all.
    pub most: usize,
    /// Which.
    pub buckets: &'a [Bucket],
    /// Versions of first attempts, as far as they are known without asking.
    pub pins: &'a [Pin],
    /// Whether jobs with a key are looked at too.
    pub mutexes: bool,
}

/// A job that is this server's to run.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// The claim: with the server, it names this attempt.
    pub claim: i64,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// The call that it is.
    pub invocation: InvocationId,
    /// The queue that it was in.
    pub queue: QueueName,
    /// What to run.
    pub name: FunctionName,
    /// From which lane.
    pub lane: Lane,
    /// The version that was asked for.
    pub selector: Selector,
    /// The version that all its attempts run, where that is known.
    pub version: Option<Version>,
    /// The type that its caller expects.
    pub kind: Option<FunctionType>,
    /// Another entry of the package.
    pub entry: Option<EntryName>,
    /// Who handed it in.
    pub caller_id: Option<CallerId>,
    /// The token that it was handed in with.
    pub token: Option<TokenName>,
    /// What the function gets.
    pub payload: String,
    /// Parameters for its context.
    pub parameters: Vec<(String, String)>,
    /// A shorter deadline.
    pub deadline: Option<Duration>,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// The delays between them.
    pub delays: Option<Vec<u64>>,
    /// Where it ends when its last attempt fails.
    pub at_end: JobState,
    /// Higher ones run first.
    pub priority: i64,
    /// Whether it has a key.
    pub keyed: bool,
}

impl Database {
    /// Takes jobs for a server that is registered; and whether there were jobs with a key, which are only
    /// taken where they are asked for. While others are taken, only the first in line are looked at for that.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<(Vec<Claimed>, bool), DatabaseError> {
        let dialect = self.dialect();
        let (sql, values) = statement(dialect, claim);
        let work = async {
            if !claim.mutexes {
                return all(&self.connection, sql, values).await;
            }
            let transaction = self.begin().await?;
            if dialect == Dialect::Postgres {
                // One at a time, and each sees what the one before it took.
                let lock = "SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)";
                all(&transaction, lock, [MUTEX_LOCK.into()]).await?;
            }
            let rows = all(&transaction, sql, values).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let rows = self.bounded(work).await?;
        let mutexed = match rows.first() {
            Some(row) => get(row, "mutexed")?,
            None => !self.bounded(all(&self.connection, KEYED, [])).await?.is_empty(),
        };
        let mut claimed = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        claimed.sort_by_key(|it| (-it.priority, it.id));
        Ok((claimed, mutexed))
    }

    /// Fixes the version of attempts that have just been claimed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pin(&self, server: Uuid, versions: &[(JobId, i64, Version)]) -> Result<(), DatabaseError> {
        let list = serde_json::Value::from_iter(versions.iter().map(|(id, claim, version)| {
            json!({ "id": id, "server_id": server, "claim": claim, "version": version.to_string() })
        }));
        let fields = [("id", Type::Id), ("server_id", Type::Id), ("claim", Type::Number), ("version", Type::Text)];
        let sql = format!(
            "WITH d AS MATERIALIZED (SELECT * FROM {}) UPDATE jobs SET version = d.version FROM d \
             WHERE jobs.id = d.id{} AND jobs.server_id = d.server_id AND jobs.claim = d.claim AND jobs.version IS NULL",
            self.dialect().records("$1", "it", &fields),
            self.dialect().among("jobs.id", "d")
        );
        self.bounded(run(&self.connection, sql, [list.to_string().into()])).await.map(drop)
    }
}

/// The values of a statement, as they are put into it.
#[derive(Default)]
struct Values(Vec<Value>);

impl Values {
    fn put(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("${}", self.0.len())
    }

    fn number(&mut self, value: usize) -> String {
        self.put(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

fn statement(dialect: Dialect, claim: &Claim<'_>) -> (String, Vec<Value>) {
    let mut values = Values::default();
    let server = dialect.id(&values.put(claim.server.to_string()));
    let ids: Vec<_> = (0..claim.most).map(|_| InvocationId::generate()).collect();
    let ids = values.put(json!(ids).to_string());
    let ids = match dialect {
        Dialect::Postgres => {
            format!("jsonb_array_elements_text(CAST({ids} AS JSONB)) WITH ORDINALITY AS u(invocation, place)")
        }
        Dialect::Sqlite => format!("(SELECT key + 1 AS place, value AS invocation FROM json_each({ids})) AS u"),
    };
    let pins = values.put(
        serde_json::Value::from_iter(claim.pins.iter().map(|pin| {
            json!({
                "name": pin.name, "lane": pin.lane,
                "selector": pin.selector.to_string(), "version": pin.version.to_string(),
            })
        }))
        .to_string(),
    );
    let fields = [("name", Type::Text), ("lane", Type::Text), ("selector", Type::Text), ("version", Type::Text)];
    let pins = dialect.records(&pins, "p", &fields);
    let node = values.put(super::rows::entry(JobState::Processing, claim.node, None, None).trim_end_matches('}'));

    let mut with = vec![format!("pins AS MATERIALIZED (SELECT name, lane, selector, version FROM {pins})")];
    let keyless = dialect.null("mutex_key");
    let keys = if claim.mutexes {
        with.push(
            "busy AS (SELECT mutex_key, count(*) AS held FROM jobs \
             WHERE state = 'processing' AND mutex_key IS NOT NULL GROUP BY mutex_key)"
                .into(),
        );
        with.push(
            "eligible AS (SELECT id FROM (SELECT j.id, j.mutex_limit, COALESCE(busy.held, 0) + row_number() \
             OVER (PARTITION BY j.mutex_key ORDER BY j.priority DESC, j.id) AS place \
             FROM jobs AS j LEFT JOIN busy ON busy.mutex_key = j.mutex_key \
             WHERE j.state = 'enqueued' AND j.mutex_key IS NOT NULL) AS line WHERE place <= mutex_limit)"
                .into(),
        );
        format!("({keyless} OR id IN (SELECT id FROM eligible))")
    } else {
        keyless.clone()
    };
    let (mut parts, mut ahead) = (Vec::new(), Vec::new());
    for (at, bucket) in claim.buckets.iter().enumerate() {
        let wanted = conditions(bucket, &mut values);
        let keys = if bucket.ahead { format!("{keyless} AND attempt + 1 < max_attempts") } else { keys.clone() };
        let most = values.number(bucket.most.min(claim.most));
        with.push(format!(
            "part{at} AS (SELECT id, priority FROM jobs WHERE state = 'enqueued' AND {keys}{wanted} \
             ORDER BY priority DESC, id LIMIT {}{})",
            dialect.few(&most),
            dialect.skip_locked()
        ));
        let part = format!("SELECT id, priority FROM part{at}");
        if bucket.ahead { ahead.push(part) } else { parts.push(part) }
    }
    if !parts.is_empty() {
        let (parts, places) = (parts.join(" UNION ALL "), values.number(claim.places));
        with.push(format!(
            "here AS (SELECT id, priority FROM ({parts}) AS parts ORDER BY priority DESC, id LIMIT {places})"
        ));
        ahead.push("SELECT id, priority FROM here".to_owned());
    }
    let most = values.number(claim.most);
    with.push(format!(
        "picked AS (SELECT id, row_number() OVER (ORDER BY priority DESC, id) AS place FROM ({}) AS parts \
         ORDER BY priority DESC, id LIMIT {most})",
        ahead.join(" UNION ")
    ));
    // That they wait still needs no saying, as they are held since they were picked; and said, it would let PostgreSQL
    // look for them in an index of all that wait.
    let (now, invocation) = (dialect.now(), dialect.id("u.invocation"));
    let sql = format!(
        "WITH {} UPDATE jobs SET state = 'processing', since = {now}, server_id = {server}, claim = claim + 1, \
         attempt = attempt + 1, invocation_id = {invocation}, run_at = NULL, \
         version = COALESCE(version, (SELECT pins.version FROM pins WHERE pins.name = jobs.function_name \
         AND pins.lane = jobs.lane AND pins.selector = jobs.selector)), \
         history = history || ',{{\"at\":' || {now} || {node} || ',\"invocation\":\"' || u.invocation || '\"}}' \
         FROM picked JOIN {ids} ON u.place = picked.place \
         WHERE jobs.id = picked.id \
         AND EXISTS (SELECT 1 FROM job_servers WHERE job_servers.id = {server}) \
         RETURNING CAST(jobs.id AS TEXT) AS id, jobs.claim AS claim, jobs.attempt AS attempt, \
         CAST(jobs.invocation_id AS TEXT) AS invocation_id, jobs.queue AS queue, jobs.priority AS priority, \
         jobs.function_name AS function_name, jobs.lane AS lane, jobs.selector AS selector, jobs.version AS version, \
         jobs.kind AS kind, jobs.entry AS entry, jobs.caller_id AS caller_id, jobs.token AS token, jobs.payload AS payload, \
         jobs.parameters AS parameters, jobs.deadline_ms AS deadline_ms, jobs.max_attempts AS max_attempts, \
         jobs.delays AS delays, jobs.at_end AS at_end, jobs.mutex_key IS NOT NULL AS keyed, \
         EXISTS ({KEYED}) AND EXISTS (SELECT 1 FROM (SELECT k.mutex_key FROM jobs AS k WHERE k.state = 'enqueued' \
         ORDER BY k.priority DESC, k.id LIMIT {}) AS line WHERE line.mutex_key IS NOT NULL) AS mutexed",
        with.join(", "),
        dialect.few(LINE)
    );
    (sql, values.0)
}

fn conditions(bucket: &Bucket, values: &mut Values) -> String {
    let mut text = String::new();
    let mut list = |names: Vec<&str>| {
        let names: Vec<_> = names.into_iter().map(|name| values.put(name)).collect();
        names.join(", ")
    };
    if let Some(queues) = &bucket.queues {
        text += &format!(" AND queue IN ({})", list(queues.iter().map(QueueName::as_str).collect()));
    }
    if !bucket.except_queues.is_empty() {
        text += &format!(" AND queue NOT IN ({})", list(bucket.except_queues.iter().map(QueueName::as_str).collect()));
    }
    if let Some(function) = &bucket.function {
        text += &format!(" AND function_name IN ({})", list(vec![function.as_str()]));
    }
    if !bucket.except_functions.is_empty() {
        let names = list(bucket.except_functions.iter().map(FunctionName::as_str).collect());
        text += &format!(" AND function_name NOT IN ({names})");
    }
    text
}

fn read(row: &QueryResult) -> Result<Claimed, DbErr> {
    let json = |column: &str| get::<Option<String>>(row, column);
    let broken = |error: serde_json::Error| DbErr::Type(format!("a job's row is not valid: {error}"));
    Ok(Claimed {
        id: JobId(id(row, "id")?),
        claim: get(row, "claim")?,
        attempt: unsigned("attempt", get(row, "attempt")?)?,
        invocation: InvocationId(id(row, "invocation_id")?),
        queue: parsed(row, "queue")?,
        name: parsed(row, "function_name")?,
        lane: parsed(row, "lane")?,
        selector: parsed(row, "selector")?,
        version: word(row, "version")?,
        kind: word(row, "kind")?,
        entry: word(row, "entry")?,
        caller_id: word(row, "caller_id")?,
        token: word(row, "token")?,
        payload: get(row, "payload")?,
        parameters: json("parameters")?.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text).map_err(broken))?,
        deadline: get::<Option<i64>>(row, "deadline_ms")?
            .map(|ms| unsigned("deadline", ms).map(Duration::from_millis))
            .transpose()?,
        max_attempts: unsigned("attempts", get(row, "max_attempts")?)?,
        delays: json("delays")?.map(|text| serde_json::from_str(&text).map_err(broken)).transpose()?,
        at_end: parsed(row, "at_end")?,
        priority: get(row, "priority")?,
        keyed: get(row, "keyed")?,
    })
}

#[cfg(test)]
mod tests;
