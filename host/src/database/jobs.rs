//! Jobs, schedules and the servers that run them.
//!
//! Each step is one transaction, and most are one statement for any number of jobs: rows go in and out as
//! records of one JSON parameter. A step says where the job must stand for it (its state, and for an attempt
//! the claim that it runs under), so one that comes too late changes nothing. All times that decide
//! something are the database's.

mod changes;
mod claims;
mod dialect;
mod enqueue;
mod listen;
mod queries;
mod rows;
mod schedules;
mod servers;
mod succeed;

pub use changes::{Applied, Change, From};
pub use claims::{Bucket, Claim, Claimed, Pin};
pub use enqueue::{EnqueueError, Enqueued};
pub use listen::{Heard, Listener};
pub use queries::{JobFilter, JobQuery, QueueCounts};
pub use rows::{BatchRow, HistoryEntry, JobRow, NewJob};
pub use schedules::{DueSchedule, NewSchedule, ScheduleRow, Ticked};
pub use servers::{Orphan, ServerRow, Upcoming};
pub use succeed::Success;
