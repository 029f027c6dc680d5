//! Schedules, and the jobs that they make: one a tick, however many servers look.

use chrono::{DateTime, Utc};
use sea_orm::{DbErr, QueryResult};
use serde_json::json;

use crate::{
    database::{Database, DatabaseError, damaged, signed, storable, time, unsigned},
    function::{JobId, Misfire, Overlap},
};

use super::{
    dialect::{Type, all, run},
    enqueue::insert,
    rows::{NewJob, get, optional_id, parsed},
};

/// A schedule as it is to be.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its id.
    pub id: String,
    /// When it is due.
    pub cron: String,
    /// In which time zone.
    pub time_zone: String,
    /// What becomes of ticks that were missed.
    pub misfire: Misfire,
    /// What a tick does while an earlier job has not ended.
    pub overlap: Overlap,
    /// The job that it makes; its id and state don't count.
    pub job: NewJob,
    /// Whether it makes none now.
    pub paused: bool,
    /// Its next tick.
    pub next_at: Option<DateTime<Utc>>,
}

/// A schedule as it stands.
#[derive(Debug, Clone)]
pub struct ScheduleRow {
    /// What it is.
    pub schedule: NewSchedule,
    /// Changes each time that somebody changes it.
    pub revision: i64,
    /// Its last tick that was run.
    pub last_at: Option<DateTime<Utc>>,
    /// The job of it.
    pub last_job: Option<JobId>,
    /// How many ticks were passed over because an earlier job had not ended.
    pub skipped: u64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub updated_at: DateTime<Utc>,
}

/// A schedule that is due.
#[derive(Debug)]
pub struct DueSchedule {
    /// The schedule.
    pub row: ScheduleRow,
    /// Whether a job of it has not ended.
    pub running: bool,
}

/// What came of a look at a schedule.
#[derive(Debug, Default)]
pub struct Ticked {
    /// The jobs to make.
    pub jobs: Vec<NewJob>,
    /// Its next tick; none: never.
    pub next_at: Option<DateTime<Utc>>,
    /// How many ticks were passed over.
    pub skipped: u64,
}

const ROW: &str = "job_schedules.id AS id, cron, time_zone, misfire, overlap, paused, job, revision, next_at, last_at, \
     CAST(last_job AS TEXT) AS last_job, skipped, job_schedules.created_at AS created_at, updated_at";

fn read(row: &QueryResult) -> Result<ScheduleRow, DbErr> {
    let at = |column| get::<Option<i64>>(row, column)?.map(time).transpose();
    let job: String = get(row, "job")?;
    Ok(ScheduleRow {
        schedule: NewSchedule {
            id: get(row, "id")?,
            cron: get(row, "cron")?,
            time_zone: get(row, "time_zone")?,
            misfire: parsed(row, "misfire")?,
            overlap: parsed(row, "overlap")?,
            job: serde_json::from_str(&job).map_err(|error| damaged("job", error))?,
            paused: get(row, "paused")?,
            next_at: at("next_at")?,
        },
        revision: get(row, "revision")?,
        last_at: at("last_at")?,
        last_job: optional_id(row, "last_job")?.map(JobId),
        skipped: unsigned("skipped", get(row, "skipped")?)?,
        created_at: time(get(row, "created_at")?)?,
        updated_at: time(get(row, "updated_at")?)?,
    })
}

impl Database {
    /// Makes a schedule, or makes the one of that id so; whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_schedule(&self, schedule: &NewSchedule) -> Result<bool, DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let job = serde_json::to_string(&schedule.job).map_err(|error| DatabaseError::Query(error.to_string()))?;
        let sql = format!(
            "INSERT INTO job_schedules (id, cron, time_zone, misfire, overlap, paused, job, revision, next_at, \
             skipped, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, 0, {now}, {now}) \
             ON CONFLICT (id) DO UPDATE SET cron = excluded.cron, time_zone = excluded.time_zone, \
             misfire = excluded.misfire, overlap = excluded.overlap, paused = excluded.paused, job = excluded.job, \
             revision = job_schedules.revision + 1, next_at = excluded.next_at, updated_at = excluded.updated_at \
             RETURNING revision"
        );
        let values = [
            schedule.id.as_str().into(),
            storable(&schedule.cron).as_ref().into(),
            schedule.time_zone.as_str().into(),
            schedule.misfire.as_str().into(),
            schedule.overlap.as_str().into(),
            schedule.paused.into(),
            // The text form of U+0000 in JSON, which PostgreSQL's refuses once it is read as such.
            job.replace("\\u0000", "\u{fffd}").into(),
            schedule.next_at.map(|at| at.timestamp_micros()).into(),
        ];
        let work = async {
            let rows = all(&self.connection, sql, values).await?;
            dialect.tell(&self.connection, "later").await?;
            let revision: i64 = rows.first().map_or(Ok(1), |row| get(row, "revision"))?;
            Ok(revision == 1)
        };
        self.bounded(work).await
    }

    /// A schedule.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedule(&self, id: &str) -> Result<Option<ScheduleRow>, DatabaseError> {
        let sql = format!("SELECT {ROW} FROM job_schedules WHERE id = $1");
        let rows = self.bounded(all(&self.connection, sql, [id.into()])).await?;
        Ok(rows.first().map(read).transpose()?)
    }

    /// The schedules after `after`, by id, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules(&self, after: &str, limit: u64) -> Result<Vec<ScheduleRow>, DatabaseError> {
        let sql = format!("SELECT {ROW} FROM job_schedules WHERE id > $1 ORDER BY job_schedules.id LIMIT $2");
        let rows = self.bounded(all(&self.connection, sql, [after.into(), signed(limit).into()])).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Removes a schedule; whether there was one. The jobs that it made stay.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_schedule(&self, id: &str) -> Result<bool, DatabaseError> {
        let sql = "DELETE FROM job_schedules WHERE id = $1";
        Ok(self.bounded(run(&self.connection, sql, [id.into()])).await? > 0)
    }

    /// Pauses a schedule or lets it go on from `next_at`; whether there is one. One that stands so already
    /// stays as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pause_schedule(
        &self,
        id: &str,
        paused: bool,
        next_at: Option<DateTime<Utc>>,
    ) -> Result<bool, DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let sql = format!(
            "UPDATE job_schedules SET next_at = CASE WHEN paused = $2 THEN next_at ELSE $3 END, paused = $2, \
             revision = revision + 1, updated_at = {now} WHERE id = $1"
        );
        let values = [id.into(), paused.into(), next_at.map(|at| at.timestamp_micros()).into()];
        let work = async {
            let found = run(&self.connection, sql, values).await?;
            dialect.tell(&self.connection, "later").await?;
            Ok(found > 0)
        };
        self.bounded(work).await
    }

    /// Notes the job that a schedule was triggered to make.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn triggered(&self, id: &str, job: JobId) -> Result<(), DatabaseError> {
        let sql = format!(
            "UPDATE job_schedules SET last_at = {}, last_job = {} WHERE id = $1",
            self.dialect().now(),
            self.dialect().id("$2")
        );
        self.bounded(run(&self.connection, sql, [id.into(), job.to_string().into()])).await.map(drop)
    }

    /// Makes the jobs of schedules that are due, at most `most` schedules: `look` says which, from the
    /// database's time. All in one transaction, and what another server looks at is passed over. Gives how
    /// many schedules were due.
    ///
    /// # Errors
    /// When the database fails; then nothing is done.
    pub async fn tick(
        &self,
        node: &str,
        most: u64,
        look: impl Fn(&DueSchedule, DateTime<Utc>) -> Ticked,
    ) -> Result<usize, DatabaseError> {
        let (dialect, clock) = (self.dialect(), self.dialect().now());
        let due = format!(
            "SELECT {ROW}, {clock} AS now, EXISTS (SELECT 1 FROM jobs WHERE schedule_id = job_schedules.id \
             AND schedule_id IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'deleted')) AS running \
             FROM job_schedules WHERE NOT paused AND next_at <= {clock} ORDER BY next_at LIMIT $1{}",
            dialect.skip_locked()
        );
        let fields = [
            ("id", Type::Text),
            ("next_at", Type::Number),
            ("last_at", Type::Number),
            ("last_job", Type::Id),
            ("skipped", Type::Number),
        ];
        let advance = format!(
            "UPDATE job_schedules SET next_at = d.next_at, last_at = COALESCE(d.last_at, job_schedules.last_at), \
             last_job = COALESCE(d.last_job, job_schedules.last_job), skipped = job_schedules.skipped + d.skipped \
             FROM {} WHERE job_schedules.id = d.id",
            dialect.records("$1", "d", &fields)
        );
        let work = async {
            let transaction = self.begin().await?;
            let rows = all(&transaction, due, [signed(most).into()]).await?;
            if rows.is_empty() {
                return Ok(0);
            }
            let (mut jobs, mut changes) = (Vec::new(), Vec::new());
            for row in &rows {
                let schedule = DueSchedule { row: read(row)?, running: get(row, "running")? };
                let ticked = look(&schedule, time(get(row, "now")?)?);
                let last = ticked.jobs.last();
                changes.push(json!({
                    "id": schedule.row.schedule.id,
                    "next_at": ticked.next_at.map(|at| at.timestamp_micros()),
                    "last_at": last.and_then(|job| job.tick).map(|at| at.timestamp_micros()),
                    "last_job": last.map(|job| job.id),
                    "skipped": ticked.skipped,
                }));
                jobs.extend(ticked.jobs);
            }
            insert(&transaction, dialect, node, &jobs).await?;
            run(&transaction, advance, [json!(changes).to_string().into()]).await?;
            transaction.commit().await?;
            Ok(rows.len())
        };
        self.bounded(work).await
    }

    /// The database's clock.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clock(&self) -> Result<DateTime<Utc>, DatabaseError> {
        let sql = format!("SELECT {} AS now", self.dialect().now());
        let rows = self.bounded(all(&self.connection, sql, [])).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::Query("no row".into()))?;
        Ok(get(row, "now").and_then(time)?)
    }
}
