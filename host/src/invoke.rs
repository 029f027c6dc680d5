//! The spine: the one way of every call, whoever makes it.
//!
//! ```text
//! 1 admission.acquire   a place, or at_capacity
//! 2 catalog.resolve     the exact version
//! 3 artifacts.get       the version ready to run
//! 4 runtime.execute     the outcome
//! 5 journal.record      the invocation's row
//! ```
//! [`Invoker::start`] owns 1 and 5 around a private run of 2 to 4, so no early return skips the journal;
//! a panic in between becomes [`InvokeError::Panicked`]. The run is a task of its own, or becomes one: a caller that
//! goes away leaves it alone, and it can be found by its id until its row is in
//! the database.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    artifacts::{ArtifactError, Artifacts},
    catalog::{Catalog, CatalogError},
    config::{HistoryConfig, Limits, seconds},
    database::{Database, DatabaseError, InvocationRow},
    function::{ErrorCode, Failure, FailureKind, FunctionRef, FunctionType, Invocation, InvocationId, Status},
    runtime::{Call, Runtime, RuntimeError, console::Console, exchange::Exchange, native::Sandbox},
};

mod admission;
mod journal;
mod live;
mod tail;
mod turn;
mod work;

pub use admission::Admission;
use admission::{AtCapacity, Permit};
use journal::Journal;
use live::Register;
pub use live::{Ended, Live, sealed};
use tail::Mirrors;
pub use tail::{Expired, Heard, Tail};
pub use turn::turn;
use work::Work;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// No place for it.
    #[error(transparent)]
    AtCapacity(#[from] AtCapacity),
    /// It names the wrong type.
    #[error("{name} is of type {is}, and the call asks for {asked}: leave 'type' out, or give '{is}'")]
    TypeConflict {
        /// The function.
        name: String,
        /// Its type.
        is: FunctionType,
        /// The type that the call names.
        asked: FunctionType,
    },
    /// The version can't be found.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The version can't be fetched or prepared.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The host could not run it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] Failure),
    /// The host panicked.
    #[error("a panic: {0}")]
    Panicked(String),
}

impl InvokeError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AtCapacity(_) => ErrorCode::AtCapacity,
            Self::TypeConflict { .. } => ErrorCode::TypeConflict,
            Self::Catalog(error) => error.code(),
            Self::Artifact(error) => error.code(),
            Self::Runtime(RuntimeError::Exhausted(_)) => ErrorCode::AtCapacity,
            Self::Runtime(RuntimeError::Unconfined(_)) => ErrorCode::Unconfined,
            Self::Runtime(RuntimeError::Damaged(_) | RuntimeError::Unsuitable(_) | RuntimeError::Host(_))
            | Self::Panicked(_) => ErrorCode::Internal,
            Self::Guest(failure) => failure.kind.into(),
        }
    }

    /// The status that an invocation which ended with it has.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Guest(failure) => failure.kind.status(),
            _ => Status::Failed,
        }
    }

    /// What happened, in words that the caller may read.
    #[must_use]
    pub fn detail(&self) -> String {
        match self.code() {
            ErrorCode::Internal => "the server could not run the function; its log says why".to_owned(),
            ErrorCode::StoreUnavailable => {
                "the function is not on this server yet, and the store cannot be reached now; try again later"
                    .to_owned()
            }
            ErrorCode::DatabaseUnavailable => "the database cannot be reached now; try again later".to_owned(),
            ErrorCode::AtCapacity => "the server runs as many calls as it may now; try again later".to_owned(),
            ErrorCode::Unconfined => {
                "the server cannot confine native programs, and so runs none; its log says what is missing".to_owned()
            }
            _ => self.to_string(),
        }
    }
}

/// What an [`Invoker`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Finds versions.
    pub catalog: Arc<Catalog>,
    /// Prepares them.
    pub artifacts: Artifacts,
    /// Runs them.
    pub runtime: Arc<Runtime>,
    /// Keeps history.
    pub database: Database,
    /// The name of this server in history.
    pub node: Arc<str>,
    /// The threads on which connections live and waiting is done.
    pub services: tokio::runtime::Handle,
}

/// Runs calls. One a server; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Invoker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    limits: Limits,
    admission: Admission,
    register: Arc<Register>,
    journal: Journal,
    mirrors: Arc<Mirrors>,
    runs: TaskTracker,
    stop: CancellationToken,
    /// Ended when the invoker is.
    writers: TaskTracker,
}

impl Invoker {
    /// An invoker, with the tasks that keep its history.
    #[must_use]
    pub fn new(parts: Parts, limits: &Limits, history: &HistoryConfig) -> Self {
        let register = Arc::new(Register::default());
        let journal = Journal::new(parts.database.clone(), register.clone(), parts.node.clone(), history);
        let shared = Arc::new(Shared {
            admission: Admission::new(limits),
            limits: limits.clone(),
            register,
            journal,
            mirrors: Arc::default(),
            runs: TaskTracker::new(),
            stop: CancellationToken::new(),
            writers: TaskTracker::new(),
            parts,
        });
        let (writer, keeper) = (shared.clone(), shared.clone());
        shared.writers.spawn_on(async move { writer.journal.write(writer.stop.clone()).await }, &shared.parts.services);
        shared.writers.spawn_on(
            async move { keeper.stop.clone().run_until_cancelled(keeper.journal.look_after()).await },
            &shared.parts.services,
        );
        Self { shared }
    }

    /// Starts a call and gives a handle of it, at once. Its end, good or bad, is in the handle.
    #[must_use]
    pub fn start(&self, invocation: Invocation) -> Arc<Live> {
        self.start_with(invocation, None)
    }

    /// As [`start`](Self::start), of a call that answers an HTTP request: the answer comes over the exchange.
    #[must_use]
    pub fn start_exchange(&self, invocation: Invocation, exchange: Exchange) -> Arc<Live> {
        self.start_with(invocation, Some(Arc::new(exchange)))
    }

    /// Makes a call for a caller who waits for its end, which is then in the handle. It goes on in the caller's task, whom
    /// its end so wakes at once; where that is dropped, it goes on without.
    /// With the callers whose tasks are ready on the same thread it goes in step: see [`turn`].
    pub async fn call(&self, invocation: Invocation) -> Arc<Live> {
        turn().await;
        let (live, work) = self.prepare(invocation, None);
        work.attended(&self.shared.parts.services).await;
        turn().await;
        live
    }

    fn start_with(&self, invocation: Invocation, exchange: Option<Arc<Exchange>>) -> Arc<Live> {
        let (live, work) = self.prepare(invocation, exchange);
        work.start_here(&self.shared.parts.services);
        live
    }

    fn prepare(&self, invocation: Invocation, exchange: Option<Arc<Exchange>>) -> (Arc<Live>, Work) {
        let keep = usize::try_from(self.shared.limits.output_bytes).unwrap_or(usize::MAX);
        let live = Arc::new(Live::new(&invocation, Arc::new(Console::new(keep)), CancellationToken::new()));
        self.shared.register.insert(live.clone());
        let (shared, run) = (self.shared.clone(), live.clone());
        let tracked = self.shared.runs.track_future(async move { shared.invoke(invocation, exchange, run).await });
        (live, Work::new(tracked))
    }

    /// Finds out whether a call can be begun at all, and then starts it and writes its row, so that it
    /// can be asked for at every server of the database: for callers who don't wait for the end.
    ///
    /// # Errors
    /// When there is no such version, or the database can't be reached.
    pub async fn start_detached(&self, invocation: Invocation) -> Result<Arc<Live>, DetachedError> {
        let resolving = self.shared.parts.catalog.resolve(&invocation.name, &invocation.lane, invocation.selector);
        check_type(&invocation, &*resolving.await.map_err(InvokeError::from)?)?;
        let live = self.start(invocation);
        if let Err(error) = self.shared.journal.announce(&live).await {
            live.cancel.cancel();
            return Err(error.into());
        }
        Ok(live)
    }

    /// A call of this server that is under way, or has just ended.
    #[must_use]
    pub fn live(&self, id: InvocationId) -> Option<Arc<Live>> {
        self.shared.register.get(id)
    }

    /// Finds a call, on this server or in the database.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, id: InvocationId) -> Result<Option<Found>, DatabaseError> {
        if let Some(live) = self.live(id) {
            return Ok(Some(Found::Live(live)));
        }
        let database = self.shared.parts.database.clone();
        let asked = self.shared.parts.services.spawn(async move { database.invocation(id).await });
        let row = asked.await.map_err(|error| DatabaseError::Query(error.to_string()))??;
        Ok(row.map(|row| Found::Row(Box::new(row))))
    }

    /// Follows a call from line `from` on, wherever it runs or ran; `None` where there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn follow(&self, id: InvocationId, from: u64) -> Result<Option<Tail>, DatabaseError> {
        let Shared { parts, mirrors, limits, .. } = &*self.shared;
        if self.live(id).is_none()
            && let Some(mirror) = mirrors.get(id)
        {
            return Ok(Some(Tail::mirror(mirror, from, parts.node.clone())));
        }
        Ok(self.find(id).await?.map(|found| match found {
            Found::Live(live) => Tail::live(live, false, from, parts.node.clone()),
            Found::Row(row) => {
                let keep = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
                let mirror = mirrors.make(*row, keep, &parts.database, &parts.services);
                Tail::mirror(mirror, from, parts.node.clone())
            }
        }))
    }

    /// Follows a call of this server, for its caller.
    #[must_use]
    pub fn tail(&self, live: Arc<Live>, from: u64) -> Tail {
        Tail::live(live, true, from, self.shared.parts.node.clone())
    }

    /// All calls of this server that are under way, or have just ended, newest first.
    #[must_use]
    pub fn all_live(&self) -> Vec<Arc<Live>> {
        self.shared.register.all()
    }

    /// How many tasks there are of calls, of connections to store and database, and behind them.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.shared.parts.services.metrics().num_alive_tasks() + self.shared.parts.runtime.tasks()
    }

    /// What confines native programs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        self.shared.parts.runtime.sandbox()
    }

    /// The name of this server in history.
    #[must_use]
    pub fn node(&self) -> &Arc<str> {
        &self.shared.parts.node
    }

    /// Waits at most `limit` for the calls under way, ends the rest, and sees history written. No call
    /// may be started after it.
    pub async fn shutdown(&self, limit: Duration) {
        let shared = &self.shared;
        shared.runs.close();
        if tokio::time::timeout(limit, shared.runs.wait()).await.is_err() {
            let left = shared.register.all();
            tracing::warn!(
                calls = left.len(),
                "calls are still under way at the end of the shutdown; they are cancelled"
            );
            left.iter().for_each(|live| live.cancel.cancel());
            shared.runs.wait().await;
        }
        shared.stop.cancel();
        let unwritten = shared.journal.flushed(Duration::from_secs(10)).await;
        if unwritten > 0 {
            tracing::error!(rows = unwritten, "the database was away until the end; this history is lost");
        }
        shared.writers.close();
        // A writer that waits for a database which is away ends with its thread.
        drop(tokio::time::timeout(Duration::from_secs(1), shared.writers.wait()).await);
    }
}

/// Where a call can be seen.
#[derive(Debug)]
pub enum Found {
    /// In this server, under way or just ended.
    Live(Arc<Live>),
    /// In the database.
    Row(Box<InvocationRow>),
}

/// Why a call was not begun.
#[derive(Debug, thiserror::Error)]
pub enum DetachedError {
    /// There is nothing to call.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// It could not be written down.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

fn check_type(invocation: &Invocation, function: &FunctionRef) -> Result<(), InvokeError> {
    match invocation.kind {
        Some(asked) if asked != function.kind => {
            Err(InvokeError::TypeConflict { name: invocation.name.to_string(), is: function.kind, asked })
        }
        _ => Ok(()),
    }
}

impl Shared {
    async fn invoke(&self, invocation: Invocation, exchange: Option<Arc<Exchange>>, live: Arc<Live>) {
        let admitted = unless_cancelled(&live, self.admission.acquire(&invocation)).await;
        let admitted = admitted.and_then(|admitted| admitted.map_err(InvokeError::from));
        let begun = Instant::now();
        let permit = match admitted {
            Ok(permit) => permit,
            Err(error) => {
                // Not recorded: a flood that is turned away must not become a flood of the database.
                let turned_away = matches!(error, InvokeError::AtCapacity(_));
                live.end(Err(error), begun.elapsed());
                if turned_away {
                    self.register.remove(live.id);
                } else {
                    self.journal.record(live);
                }
                return;
            }
        };
        let run = AssertUnwindSafe(self.run(invocation, exchange, &live, permit)).catch_unwind();
        let result = match run.await {
            Ok(result) => result,
            Err(panic) => Err(InvokeError::Panicked(message(&*panic))),
        };
        if let Err(error) = &result {
            log(&live, error);
        }
        live.end(result, begun.elapsed());
        self.journal.record(live);
    }

    async fn run(
        &self,
        invocation: Invocation,
        exchange: Option<Arc<Exchange>>,
        live: &Live,
        permit: Permit,
    ) -> Result<String, InvokeError> {
        let resolving = self.parts.catalog.resolve(&invocation.name, &invocation.lane, invocation.selector);
        let function = unless_cancelled(live, resolving).await??;
        check_type(&invocation, &function)?;
        let _permit = match function.kind {
            FunctionType::Dll => permit,
            FunctionType::Exe => unless_cancelled(live, self.admission.exchange(permit)).await??,
        };
        live.begin(function.clone());
        let entry = invocation.entry.clone();
        let within = invocation.deadline.unwrap_or(Duration::MAX).min(seconds(self.limits.deadline_seconds));
        let mut call = Call {
            id: invocation.id,
            caller_id: invocation.caller_id,
            name: invocation.name,
            lane: invocation.lane,
            version: function.location.version,
            payload: invocation.payload,
            parameters: invocation.parameters,
            confidential: invocation.confidential.is_some(),
            deadline: Instant::now(),
            cancel: live.cancel.clone(),
            memory_bytes: self.limits.memory_bytes,
            result_bytes: self.limits.result_bytes,
            console: live.console.clone(),
            exchange,
            usage: live.usage.clone(),
        };
        let mut tried = false;
        loop {
            let artifact = unless_cancelled(live, self.parts.artifacts.get(&function, entry.as_ref())).await??;
            let own = artifact.limits;
            call.memory_bytes = own.memory_bytes.unwrap_or(u64::MAX).min(self.limits.memory_bytes);
            call.result_bytes = own.result_bytes.unwrap_or(u64::MAX).min(self.limits.result_bytes);
            call.deadline = Instant::now() + own.deadline_seconds.map_or(within, |own| within.min(seconds(own)));
            let shared = Arc::new(call);
            match self.parts.runtime.execute(&artifact, &shared).await {
                Err(RuntimeError::Damaged(cause)) if !tried => {
                    tracing::warn!(function = %function.location, cause, "an artifact is damaged; it is prepared again");
                    self.parts.artifacts.invalidate(&function, entry.as_ref()).await?;
                    tried = true;
                    call = Arc::try_unwrap(shared)
                        .map_err(|_| RuntimeError::Host("a damaged artifact's call is still held".into()))?;
                }
                outcome => return Ok(outcome??),
            }
        }
    }
}

/// Waits for `step`, or for somebody to end the call.
async fn unless_cancelled<T>(live: &Live, step: impl Future<Output = T>) -> Result<T, InvokeError> {
    tokio::select! {
        biased;
        done = step => Ok(done),
        () = live.cancel.cancelled() => Err(Failure::new(FailureKind::Cancelled, "the call was cancelled").into()),
    }
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// The host's faults are errors in the log; a guest's are its caller's, and seen there.
fn log(live: &Live, error: &InvokeError) {
    let (id, function) = (live.id, &live.name);
    let caller = live.caller_id.as_ref().map(crate::function::CallerId::as_str);
    if error.code() == ErrorCode::Internal {
        tracing::error!(invocation = %id, caller, %function, lane = %live.lane, %error, "a call failed in the server");
    } else if live.confidential.is_some() {
        // What its guest says is between it and its caller.
        let code = error.code().as_str();
        tracing::debug!(invocation = %id, caller, %function, lane = %live.lane, code, "a call failed");
    } else {
        tracing::debug!(invocation = %id, caller, %function, lane = %live.lane, %error, "a call failed");
    }
}
