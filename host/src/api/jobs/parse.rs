//! A job as it was asked for.

use chrono::{DateTime, TimeDelta, Utc};

use super::super::{Caller, Problem, Services, call, fields::Fields};
use crate::{
    database::jobs::NewJob,
    function::{ContinueOn, ErrorCode, JobId, JobState, QueueName},
    jobs::state::MOST_ATTEMPTS,
};

/// The queue of jobs that name none.
const DEFAULT_QUEUE: &str = "default";
/// The longest key.
const MAX_KEY: usize = 200;
/// The longest wait, in seconds: ten years.
const MAX_WAIT: u64 = 315_360_000;
/// How many delays may be given.
const MAX_DELAYS: usize = 100;

/// The fields beside those of a call, for messages.
#[must_use]
pub fn known_fields() -> &'static str {
    "'runAt', 'delaySeconds', 'queue', 'priority', 'maxAttempts', 'retryDelays', 'onExhausted', 'idempotencyKey', \
     'continueAfter', 'continueOn', 'mutexKey', 'mutexLimit' and those of a call"
}

/// A time in a field.
pub fn time(name: &str, text: &str) -> Result<DateTime<Utc>, Problem> {
    DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|_| {
        let text: String = text.chars().take(40).collect();
        Problem::invalid(format!("{name} {text:?} is not valid: it must be a time as in 2026-01-31T12:00:00Z"))
    })
}

fn key(fields: &mut Fields, name: &str) -> Result<Option<String>, Problem> {
    let Some(text) = fields.take(name)? else { return Ok(None) };
    if text.len() > MAX_KEY || text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{name} must be at most {MAX_KEY} bytes without control characters")));
    }
    Ok(Some(text))
}

/// The job that the fields describe: those of a call, and those that say when, where and how often.
pub async fn job(mut fields: Fields, payload: String, services: &Services, caller: &Caller) -> Result<NewJob, Problem> {
    let config = services.jobs().config();
    let run_at = match (fields.take("runAt")?, fields.number("delaySeconds", 0, MAX_WAIT)?) {
        (Some(_), Some(_)) => return Err(Problem::invalid("give either 'runAt' or 'delaySeconds'")),
        (Some(at), None) => Some(time("runAt", &at)?),
        (None, Some(0)) | (None, None) => None,
        (None, Some(delay)) => Some(Utc::now() + TimeDelta::seconds(i64::try_from(delay).unwrap_or(0))),
    };
    let queue = match fields.parse::<QueueName>("queue")? {
        Some(queue) => queue,
        None => QueueName::parse(DEFAULT_QUEUE)?,
    };
    let priority =
        match fields.take("priority")? {
            None => config.queues.get(queue.as_str()).map_or(0, |queue| queue.priority),
            Some(text) => text.parse().ok().filter(|it| (-1000..=1000).contains(it)).ok_or_else(|| {
                Problem::invalid("priority is not valid: it must be a whole number from -1000 to 1000")
            })?,
        };
    let most = fields.number("maxAttempts", 1, u64::from(MOST_ATTEMPTS))?.unwrap_or(config.attempts);
    let delays = fields.take("retryDelays")?.map(|text| {
        let delays: Option<Vec<u64>> = serde_json::from_str(&text).ok();
        let fits = |delays: &Vec<u64>| {
            (1..=MAX_DELAYS).contains(&delays.len()) && delays.iter().all(|delay| *delay <= MAX_WAIT)
        };
        delays.filter(fits).ok_or_else(|| {
            Problem::invalid(format!("retryDelays must be a JSON list of 1 to {MAX_DELAYS} numbers of seconds"))
        })
    });
    let at_end = match fields.parse::<JobState>("onExhausted")? {
        None => JobState::Failed,
        Some(end @ (JobState::Failed | JobState::Deleted)) => end,
        Some(_) => return Err(Problem::invalid("onExhausted must be 'failed' or 'deleted'")),
    };
    let continue_on = fields.parse::<ContinueOn>("continueOn")?;
    let after = match fields.take("continueAfter")? {
        Some(text) => Some((super::id(&text)?, continue_on.unwrap_or(ContinueOn::Succeeded))),
        None if continue_on.is_some() => return Err(Problem::invalid("'continueOn' needs 'continueAfter'")),
        None => None,
    };
    if after.is_some() && run_at.is_some() {
        return Err(Problem::invalid(
            "a job that continues after another one begins when that ends: leave 'runAt' and 'delaySeconds' out",
        ));
    }
    let limit = fields.number("mutexLimit", 1, 100_000)?;
    let mutex = match (key(&mut fields, "mutexKey")?, limit) {
        (Some(key), limit) => Some((key, limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(1))),
        (None, Some(_)) => return Err(Problem::invalid("'mutexLimit' needs 'mutexKey'")),
        (None, None) => None,
    };
    let idempotency_key = key(&mut fields, "idempotencyKey")?;
    let call = call::invocation(fields, payload, services, caller).await?;
    if call.confidential.is_some() {
        let detail = "a job's payload is kept until it runs, so it cannot come encrypted: send it as it is";
        return Err(Problem::new(ErrorCode::InvalidPayload, detail));
    }
    Ok(NewJob {
        id: JobId::generate(),
        state: if run_at.is_some() { JobState::Scheduled } else { JobState::Enqueued },
        run_at,
        queue,
        priority,
        name: call.name,
        lane: call.lane,
        selector: call.selector,
        kind: call.kind,
        entry: call.entry,
        caller_id: call.caller_id,
        token: call.token,
        payload: call.payload,
        parameters: call.parameters,
        deadline: call.deadline,
        max_attempts: u32::try_from(most).unwrap_or(MOST_ATTEMPTS),
        delays: delays.transpose()?,
        at_end,
        mutex,
        after,
        batch: None,
        schedule: None,
        tick: None,
        idempotency_key,
    })
}
