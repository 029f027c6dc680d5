//! Schedules: jobs that are made again and again.

use chrono::{DateTime, Utc};

use super::{
    JobError, Jobs,
    cron::{Cron, CronError},
    timer,
};
use crate::{
    database::{
        DatabaseError,
        jobs::{Enqueued, NewSchedule, ScheduleRow},
    },
    function::ErrorCode,
};

/// Why something could not be done with a schedule.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScheduleError {
    /// Its expression or time zone.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// There is no such schedule.
    #[error("there is no schedule {0:?}")]
    NotFound(String),
    /// What comes with the jobs that it makes.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl From<DatabaseError> for ScheduleError {
    fn from(error: DatabaseError) -> Self {
        Self::Job(error.into())
    }
}

impl ScheduleError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Cron(_) => ErrorCode::InvalidRequest,
            Self::NotFound(_) => ErrorCode::ScheduleNotFound,
            Self::Job(error) => error.code(),
        }
    }
}

impl Jobs {
    /// Makes a schedule, or makes the one of that id so, from now on; whether it is new.
    ///
    /// # Errors
    /// When its expression or time zone is not valid, or the database fails.
    pub async fn put_schedule(&self, mut schedule: NewSchedule) -> Result<bool, ScheduleError> {
        let shared = &self.shared;
        let cron = Cron::parse(&schedule.cron, &schedule.time_zone)?;
        let next = cron.next(shared.database.clock().await?);
        schedule.next_at = Some(next.ok_or_else(|| CronError::Never(schedule.cron.clone()))?);
        let created = shared.database.put_schedule(&schedule).await?;
        shared.later.notify_one();
        Ok(created)
    }

    /// A schedule.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn schedule(&self, id: &str) -> Result<ScheduleRow, ScheduleError> {
        self.shared.database.schedule(id).await?.ok_or_else(|| ScheduleError::NotFound(id.into()))
    }

    /// The schedules after `after`, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedules(&self, after: &str, limit: u64) -> Result<Vec<ScheduleRow>, ScheduleError> {
        Ok(self.shared.database.schedules(after, limit).await?)
    }

    /// Removes a schedule. The jobs that it made stay.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn delete_schedule(&self, id: &str) -> Result<(), ScheduleError> {
        let found = self.shared.database.delete_schedule(id).await?;
        if found { Ok(()) } else { Err(ScheduleError::NotFound(id.into())) }
    }

    /// Pauses a schedule, or lets it go on with the next tick: those in between are passed over.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn pause_schedule(&self, id: &str, paused: bool) -> Result<ScheduleRow, ScheduleError> {
        let shared = &self.shared;
        let row = self.schedule(id).await?;
        let next: Option<DateTime<Utc>> =
            Cron::parse(&row.schedule.cron, &row.schedule.time_zone)?.next(shared.database.clock().await?);
        shared.database.pause_schedule(id, paused, next).await?;
        shared.later.notify_one();
        self.schedule(id).await
    }

    /// Makes a job of a schedule now, whatever its time, and paused or not.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn trigger(&self, id: &str) -> Result<Enqueued, ScheduleError> {
        let row = self.schedule(id).await?;
        let enqueued = self.enqueue(timer::job(&row.schedule.job, id, None)).await?;
        self.shared.database.triggered(id, enqueued.id).await?;
        Ok(enqueued)
    }
}
