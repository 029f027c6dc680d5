//! What waits for a time, and what other servers tell.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Shared, cron::Cron, ticks};
use crate::{
    config::seconds,
    database::{
        DatabaseError,
        jobs::{DueSchedule, Heard, NewJob, Ticked},
    },
    function::{JobId, JobState, Overlap},
};

/// How many schedules are looked at in one transaction.
const SCHEDULES: u64 = 100;
/// How many jobs are enqueued at once.
const JOBS: u64 = 1000;
/// How long to wait when the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the jobs of schedules and enqueues those whose time has come, until dropped.
pub(super) async fn keep_time(shared: Arc<Shared>) {
    loop {
        let wait = match look(&shared).await {
            Ok(wait) => wait.min(seconds(shared.config.poll_seconds)),
            Err(error) => {
                tracing::warn!(%error, "schedules cannot be looked at now");
                PAUSE
            }
        };
        // Whether told or timed out, the next look says what there is to do.
        drop(tokio::time::timeout(wait, shared.later.notified()).await);
    }
}

/// Does what is due; how long until the next time.
async fn look(shared: &Shared) -> Result<Duration, DatabaseError> {
    let grace = TimeDelta::seconds(i64::try_from(shared.config.misfire_seconds).unwrap_or(i64::MAX / 1000));
    loop {
        let due = shared.database.tick(&shared.node, SCHEDULES, |due, now| tick(due, now, grace)).await?;
        if due > 0 {
            shared.ready.notify_one();
        }
        if (due as u64) < SCHEDULES {
            break;
        }
    }
    loop {
        let moved = shared.database.enqueue_due(&shared.node, JOBS).await?;
        if moved > 0 {
            shared.ready.notify_one();
        }
        if moved < JOBS {
            break;
        }
    }
    let upcoming = shared.database.upcoming().await?;
    let wait = upcoming.next.map_or(Duration::MAX, |next| (next - upcoming.now).to_std().unwrap_or_default());
    Ok(wait.max(Duration::from_millis(1)))
}

/// The jobs that a schedule makes now.
fn tick(due: &DueSchedule, now: DateTime<Utc>, grace: TimeDelta) -> Ticked {
    let schedule = &due.row.schedule;
    let cron = match Cron::parse(&schedule.cron, &schedule.time_zone) {
        Ok(cron) => cron,
        Err(error) => {
            // Checked when it was made, so of another program's making.
            tracing::error!(schedule = schedule.id, %error, "a schedule cannot be followed");
            return Ticked::default();
        }
    };
    let Some(next) = schedule.next_at else { return Ticked::default() };
    let ticks = ticks::due(&cron, next, now, grace, schedule.misfire);
    let mut ticked = Ticked { next_at: ticks.next, ..Ticked::default() };
    let mut running = due.running;
    for at in ticks.ticks {
        if running && schedule.overlap == Overlap::Skip {
            ticked.skipped += 1;
            continue;
        }
        running = true;
        ticked.jobs.push(job(&schedule.job, &schedule.id, Some(at)));
    }
    ticked
}

/// A job that a schedule makes.
pub(super) fn job(template: &NewJob, schedule: &str, tick: Option<DateTime<Utc>>) -> NewJob {
    NewJob {
        id: JobId::generate(),
        state: JobState::Enqueued,
        schedule: Some(schedule.to_owned()),
        tick,
        ..template.clone()
    }
}

/// Hears what other servers tell, until dropped. Where the connection is lost, polling finds what was
/// missed, later.
pub(super) async fn listen(shared: Arc<Shared>) {
    loop {
        match shared.database.listen().await {
            Ok(None) => return,
            Ok(Some(mut listener)) => {
                shared.ready.notify_one();
                shared.later.notify_one();
                loop {
                    match listener.next().await {
                        Ok(Heard::Ready) => shared.ready.notify_one(),
                        Ok(Heard::Later) => shared.later.notify_one(),
                        Ok(Heard::Cancel(invocation)) => shared.cancel(invocation),
                        Ok(Heard::Back) => {
                            shared.ready.notify_one();
                            shared.later.notify_one();
                        }
                        Err(error) => {
                            tracing::warn!(%error, "other servers cannot be heard now");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "other servers cannot be heard now"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
