//! A call that is under way: what may be seen of it, waited for and asked of it while it runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::InvokeError;
use crate::{
    database::InvocationRow,
    function::{
        CallerId, Confidential, FunctionName, FunctionRef, FunctionType, InvocationId, Lane, OutputLine, ResultText,
        Seal, Selector, Status, TokenName, Usage, Version,
    },
    metrics,
    runtime::console::Console,
};

/// A call under way, or just ended. Shared by the task that runs it and by all who look at it.
#[derive(Debug)]
pub struct Live {
    /// Its id.
    pub id: InvocationId,
    /// Who calls.
    pub caller_id: Option<CallerId>,
    /// The token that it was made with; none where the server asks for none.
    pub token: Option<TokenName>,
    /// What is run.
    pub name: FunctionName,
    /// From which lane.
    pub lane: Lane,
    /// Which version was asked for.
    pub selector: Selector,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// What it prints.
    pub console: Arc<Console>,
    /// What it took, once that is known.
    pub usage: Arc<OnceLock<Usage>>,
    /// Ends it.
    pub cancel: CancellationToken,
    /// How to keep to itself what is said of it.
    pub confidential: Option<Confidential>,
    begun: OnceLock<Begun>,
    end: OnceLock<Ended>,
    ended: Notify,
}

/// What is known from the moment it runs.
#[derive(Debug)]
struct Begun {
    function: Arc<FunctionRef>,
    at: DateTime<Utc>,
}

/// How and when it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its result, or why there is none.
    pub result: Result<ResultText, InvokeError>,
    /// When.
    pub at: DateTime<Utc>,
    /// How long it was at work, from its place to its end.
    pub elapsed: Duration,
}

impl Ended {
    /// The status that it ended with.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.result {
            Ok(_) => Status::Succeeded,
            Err(error) => error.status(),
        }
    }
}

/// When a row has what the call printed.
enum Printed {
    Always,
    OnceEnded,
    Never,
}

impl Live {
    pub(super) fn new(
        invocation: &crate::function::Invocation,
        console: Arc<Console>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            id: invocation.id,
            caller_id: invocation.caller_id.clone(),
            token: invocation.token.clone(),
            name: invocation.name.clone(),
            lane: invocation.lane.clone(),
            selector: invocation.selector,
            created_at: Utc::now(),
            console,
            usage: Arc::default(),
            cancel,
            confidential: invocation.confidential.clone(),
            begun: OnceLock::new(),
            end: OnceLock::new(),
            ended: Notify::new(),
        }
    }

    pub(super) fn begin(&self, function: Arc<FunctionRef>) {
        // A call begins once; a second try after a damaged artifact is still the same beginning.
        self.begun.get_or_init(|| Begun { function, at: Utc::now() });
    }

    pub(super) fn end(&self, result: Result<String, InvokeError>, elapsed: Duration) {
        self.console.end();
        self.end.get_or_init(|| {
            let ended = Ended { result: result.map(Into::into), at: Utc::now(), elapsed };
            count(&ended);
            ended
        });
        self.ended.notify_waiters();
    }

    /// How it ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.end.get()
    }

    /// Waits for its end. Safe to drop at any point; the call goes on.
    pub async fn wait(&self) -> &Ended {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(end) = self.end.get() {
                return end;
            }
            ended.await;
        }
    }

    /// The version that runs; `None` while it is not known.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.begun.get().map(|begun| begun.function.location.version)
    }

    /// The function's type; `None` while it is not known.
    #[must_use]
    pub fn kind(&self) -> Option<FunctionType> {
        self.begun.get().map(|begun| begun.function.kind)
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_at(self.end.get())
    }

    fn status_at(&self, end: Option<&Ended>) -> Status {
        match (end, self.begun.get()) {
            (Some(end), _) => end.status(),
            (None, Some(_)) => Status::Running,
            (None, None) => Status::Queued,
        }
    }

    /// The call as history keeps it, as it stands now; what it printed is in it when it has ended.
    #[must_use]
    pub fn row(&self, node: &Arc<str>) -> InvocationRow {
        self.row_with(node, Printed::OnceEnded, self.seal(false))
    }

    /// As [`row`](Self::row), without what it printed: for who followed it, its caller or another.
    #[must_use]
    pub fn row_without_output(&self, node: &Arc<str>, for_caller: bool) -> InvocationRow {
        self.row_with(node, Printed::Never, self.seal(for_caller))
    }

    /// What encrypts that which is told of it to others, or to its caller.
    #[must_use]
    pub fn seal(&self, for_caller: bool) -> Option<&dyn Seal> {
        let confidential = self.confidential.as_ref()?;
        (confidential.answer || !for_caller).then_some(&*confidential.seal)
    }

    /// Why it has no result, for its caller.
    #[must_use]
    pub fn detail_for_caller(&self, error: &InvokeError) -> String {
        detail(error, self.seal(true))
    }

    /// As [`row`](Self::row), with what it has printed so far.
    pub(super) fn row_so_far(&self, node: &Arc<str>) -> InvocationRow {
        self.row_with(node, Printed::Always, self.seal(false))
    }

    fn row_with(&self, node: &Arc<str>, printed: Printed, seal: Option<&dyn Seal>) -> InvocationRow {
        // Looked at once: it may end while the row is made, and the row must be of one moment.
        let end = self.end.get();
        let error = end.and_then(|end| end.result.as_ref().err());
        let (output, output_skipped) = match printed {
            Printed::Never => (Vec::new(), 0),
            Printed::OnceEnded if end.is_none() => (Vec::new(), 0),
            Printed::OnceEnded | Printed::Always => self.console.tail(),
        };
        InvocationRow {
            id: self.id,
            caller_id: self.caller_id.clone(),
            name: self.name.clone(),
            lane: self.lane.clone(),
            selector: self.selector,
            version: self.version(),
            kind: self.kind(),
            status: self.status_at(end),
            error_code: error.map(|error| error.code().as_str().to_owned()),
            detail: error.map(|error| detail(error, seal)),
            result: end.and_then(|end| end.result.as_ref().ok()).map(|result| match seal {
                Some(seal) => seal.seal(result).into(),
                None => result.clone(),
            }),
            output: sealed(output, seal),
            output_skipped,
            node: node.clone(),
            cancel_requested: self.cancel.is_cancelled(),
            created_at: self.created_at,
            started_at: self.begun.get().map(|begun| begun.at),
            ended_at: end.map(|end| end.at),
            elapsed_us: end.map(|end| u64::try_from(end.elapsed.as_micros()).unwrap_or(u64::MAX)),
            usage: end.and(self.usage.get().copied()).unwrap_or_default(),
            token: self.token.clone(),
        }
    }
}

/// Counts a call that has ended.
fn count(ended: &Ended) {
    if matches!(ended.result, Err(InvokeError::AtCapacity(_))) {
        metrics::CALLS_TURNED_AWAY.count();
        return;
    }
    metrics::CALL_TIME.record(ended.elapsed);
    let counter = match ended.status() {
        Status::Succeeded => &metrics::CALLS_SUCCEEDED,
        Status::TimedOut => &metrics::CALLS_TIMED_OUT,
        Status::Cancelled => &metrics::CALLS_CANCELLED,
        Status::Failed | Status::Queued | Status::Running => &metrics::CALLS_FAILED,
    };
    counter.count();
}

/// Why a call has no result; what the guest says of it is sealed as its result would be.
fn detail(error: &InvokeError, seal: Option<&dyn Seal>) -> String {
    match (error, seal) {
        (InvokeError::Guest(_), Some(seal)) => seal.seal(&error.detail()),
        _ => error.detail(),
    }
}

/// Lines as they may be told.
pub fn sealed(lines: Vec<Arc<OutputLine>>, seal: Option<&dyn Seal>) -> Vec<Arc<OutputLine>> {
    let Some(seal) = seal else { return lines };
    let sealed = |line: &Arc<OutputLine>| Arc::new(OutputLine { line: seal.seal(&line.line), ..(**line).clone() });
    lines.iter().map(sealed).collect()
}

/// How many parts the register is cut into, so that calls on different cores seldom meet at a lock.
const PARTS: usize = 16;

/// Every call of this server that is under way, or has ended and is not yet in the database.
#[derive(Debug, Default)]
pub(super) struct Register {
    parts: [Mutex<HashMap<InvocationId, Arc<Live>>>; PARTS],
}

impl Register {
    fn part(&self, id: InvocationId) -> MutexGuard<'_, HashMap<InvocationId, Arc<Live>>> {
        let at = usize::from(id.0.as_bytes().last().copied().unwrap_or(0)) % PARTS;
        let [first, ..] = &self.parts;
        // A map is whole after any insert or removal, whatever panicked meanwhile.
        self.parts.get(at).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, live: Arc<Live>) {
        self.part(live.id).insert(live.id, live);
    }

    pub(super) fn get(&self, id: InvocationId) -> Option<Arc<Live>> {
        self.part(id).get(&id).cloned()
    }

    pub(super) fn remove(&self, id: InvocationId) {
        self.part(id).remove(&id);
    }

    /// All of them, newest first.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self
            .parts
            .iter()
            .flat_map(|part| {
                let part = part.lock().unwrap_or_else(PoisonError::into_inner);
                part.values().cloned().collect::<Vec<_>>()
            })
            .collect();
        all.sort_by_key(|live| std::cmp::Reverse(live.id));
        all
    }
}
