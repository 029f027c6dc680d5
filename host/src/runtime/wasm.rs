//! WebAssembly components in wasmtime.
//!
//! A component is compiled once, in a child process ([`compile`]), and its machine code loaded from a
//! file ([`Engine::load`]), checked and linked ahead of the first call. Each call then gets a store and
//! an instance of its own, which nothing ran in before and nothing will run in after; both are gone when
//! [`Engine::execute`] returns or is dropped.
//!
//! A guest can't hold its thread: every [`TICK`] the engine's epoch moves on, and running guests yield to
//! their executor after a few of them, so that their neighbours get their turn, and they
//! can be dropped at their deadline.

use std::{
    collections::hash_map::DefaultHasher,
    fs::File,
    hash::{Hash, Hasher},
    os::fd::AsRawFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store, Trap,
    component::{InstancePre, Linker},
};

use super::{Call, RuntimeError, key_values::KeyValues};
use crate::{
    config::Grant,
    function::{Declaration, Failure, FailureKind, Outcome, Shape},
};

mod abi;
mod command;
mod compile;
mod console;
mod guest;
mod http;
mod offered;
mod outgoing;
mod reach;
mod service;

pub use abi::Abi;
use bindings::FunctionPre;
pub use compile::{CompileError, compile};
use guest::Guest;
use reach::{Offers, Reach};

mod bindings {
    #![allow(missing_docs, clippy::all, clippy::restriction, reason = "generated")]
    wasmtime::component::bindgen!({ path: "../guest-sdk/wit", world: "function", exports: { default: async } });
}

/// How often the engine's epoch moves on.
pub const TICK: Duration = Duration::from_millis(2);
/// How many ticks a call's first slice may meet: with two, every call that takes less than a tick is whole.
const FIRST_TICKS: u64 = 2;
/// How many ticks a guest that takes longer has for each slice after it.
const SLICE_TICKS: u64 = 5;
/// The export that runs a function.
const EXECUTE: &str = "execute";
/// How long the text of a guest's error may be, in bytes: it is for people, and is copied more often than
/// a result.
const MAX_ERROR: usize = 16 * 1024;
/// How deep a guest's stack may grow, in bytes.
const MAX_WASM_STACK: usize = 512 * 1024;
/// How many elements a table may hold.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// How much of a guest's memory is wiped by hand rather than given back to the kernel after a call, in
/// bytes: about what a small guest touches.
const KEEP_RESIDENT: usize = 256 * 1024;

/// How many stacks a call may have at once, on an average: one for each of its tasks that waits within a function of the
/// plain ABI. Without the async ABI it is one.
const ASYNC_STACKS: u32 = 4;

/// The settings that machine code depends on, the same in the server and in the compiling child.
fn settings(abi: Abi) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(MAX_WASM_STACK * 2)
        // It costs each call some microseconds.
        .concurrency_support(abi == Abi::Async)
        // Nobody reads a guest's stack: a crash is told by its cause alone.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        .memory_init_cow(true);
    config
}

/// What a server's engine is sized for.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// How many calls may be at work at once.
    pub concurrency: u64,
    /// How much memory one may take, in bytes.
    pub memory_bytes: u64,
}

/// The wasmtime engines of a server, with all that the host offers to components.
pub struct Engine {
    plain: Side,
    /// The one for the async ABI; made for the first component that needs it.
    concurrent: Arc<OnceLock<Side>>,
    /// Whether there may be one.
    runs_async: bool,
    sizes: Sizes,
    compatibility: [String; 2],
    /// None: nothing.
    offers: Option<Arc<Offers>>,
    _ticker: Ticker,
}

/// An engine for one ABI, and what it offers.
struct Side {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
}

/// A component, compiled and linked, ready for any number of calls.
pub struct Component {
    engine: wasmtime::Engine,
    ready: Ready,
    /// What it may reach; none where it imports nothing for which that matters.
    reach: Option<Arc<Reach>>,
    /// Whether its last call took longer than a tick.
    is_long: AtomicBool,
}

/// What is called of it.
enum Ready {
    Execute(FunctionPre<Guest>),
    Http(http::Handler),
    Command(command::Program),
}

impl Ready {
    fn new(linked: InstancePre<Guest>, shape: Shape) -> wasmtime::Result<Self> {
        Ok(match shape {
            Shape::Execute => Self::Execute(FunctionPre::new(linked)?),
            Shape::Http => Self::Http(http::Handler::new(linked)?),
            Shape::Command => Self::Command(command::Program::new(linked)?),
        })
    }
}

impl Component {
    /// How it is run.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match &self.ready {
            Ready::Execute(_) => Shape::Execute,
            Ready::Http(_) => Shape::Http,
            Ready::Command(_) => Shape::Command,
        }
    }

    /// Whether its last call took longer than a [`TICK`], as the next one will then.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }

    /// Takes note of how long a call took.
    pub fn took_long(&self, long: bool) {
        self.is_long.store(long, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Component")
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("compatibility", &self.compatibility).finish_non_exhaustive()
    }
}

impl Engine {
    /// The engine for a server. Where the address space for a pool of instances can't be had, instances
    /// are made on demand, which is slower; that is logged.
    ///
    /// # Errors
    /// When wasmtime can't run on this machine.
    pub fn new(sizes: Sizes) -> Result<Self, RuntimeError> {
        let plain = Side::new(Abi::Sync, sizes)?;
        let concurrent = Arc::<OnceLock<Side>>::default();
        let ticker = Ticker::start(plain.engine.clone(), concurrent.clone())?;
        let compatibility = compatibility(&plain.engine);
        Ok(Self { plain, concurrent, runs_async: true, sizes, compatibility, offers: None, _ticker: ticker })
    }

    /// Without components of the async ABI.
    #[must_use]
    pub fn without_async(self) -> Self {
        Self { runs_async: false, ..self }
    }

    /// The engine for components of that ABI.
    fn side(&self, abi: Abi) -> Result<&Side, RuntimeError> {
        match (abi, self.concurrent.get()) {
            (Abi::Sync, _) => Ok(&self.plain),
            (Abi::Async, _) if !self.runs_async => Err(RuntimeError::Unsuitable(
                "the component needs the async ABI, as those of WASI 0.3 do, which this server's configuration does not allow \
                 (runtime.async_abi)"
                    .into(),
            )),
            (Abi::Async, Some(side)) => Ok(side),
            (Abi::Async, None) => {
                let side = Side::new(Abi::Async, self.sizes)?;
                // Another thread may have been quicker.
                Ok(self.concurrent.get_or_init(|| side))
            }
        }
    }

    /// With what these grants give to those whose packages ask for it.
    ///
    /// # Errors
    /// When a secret that is granted can't be read.
    pub fn offering(self, grants: &[Grant], stores: Arc<dyn KeyValues>) -> Result<Self, RuntimeError> {
        Ok(Self { offers: Some(Arc::new(Offers::open(grants, stores)?)), ..self })
    }

    /// Names the compiler, its settings for that ABI and this processor's features: machine code made under
    /// another name can't be loaded.
    #[must_use]
    pub fn compatibility(&self, abi: Abi) -> &str {
        let [plain, concurrent] = &self.compatibility;
        match abi {
            Abi::Sync => plain,
            Abi::Async => concurrent,
        }
    }

    /// Maps machine code that [`compile`] made for that ABI and links it, to be run as its package says, or as its
    /// first choice.
    /// The caller answers for where the file comes from: what is in it will run.
    ///
    /// # Errors
    /// [`RuntimeError::Damaged`] when it is not this engine's machine code, or not that of a function;
    /// [`RuntimeError::Unsuitable`] when it can't be run as what is wanted.
    pub fn load(&self, code: File, abi: Abi, declared: Arc<Declaration>) -> Result<Component, RuntimeError> {
        let Side { engine, linker } = self.side(abi)?;
        let wanted = declared.shape;
        let damaged = |error: wasmtime::Error| RuntimeError::Damaged(format!("{error:#}"));
        let path = format!("/proc/self/fd/{}", code.as_raw_fd());
        // SAFETY: the caller verified that this very file holds what `compile` wrote, and it lies in a
        // folder that only this server writes.
        let component = unsafe { wasmtime::component::Component::deserialize_file(engine, path) };
        let component = component.map_err(damaged)?;
        let shapes = compile::shapes(&component);
        let Some(shape) = shapes.iter().copied().find(|shape| wanted.is_none_or(|wanted| *shape == wanted)) else {
            let Some(wanted) = wanted else { return Err(RuntimeError::Damaged("it exports no function".into())) };
            let names: Vec<_> = shapes.iter().map(|shape| shape.as_str()).collect();
            return Err(RuntimeError::Unsuitable(format!(
                "the package says that its shape is '{wanted}', and its component can be run as '{}'",
                names.join("', '")
            )));
        };
        let linked = linker.instantiate_pre(&component).map_err(damaged)?;
        let reaches = |offers: &&Arc<Offers>| {
            let ty = component.component_type();
            offers.matters(&declared, ty.imports(engine).map(|(name, _)| name))
        };
        let reach = self
            .offers
            .as_ref()
            .filter(reaches)
            .cloned()
            .map(|offers| Arc::new(Reach { declared: declared.clone(), offers }));
        let ready = Ready::new(linked, shape).map_err(damaged)?;
        Ok(Component { engine: engine.clone(), ready, reach, is_long: AtomicBool::new(false) })
    }

    /// Runs one call to its end. Dropped midway, the guest ends with it: whoever polls this sees to deadline
    /// and cancellation, between two slices.
    ///
    /// # Errors
    /// When the host could not run it; whatever the guest does is an [`Outcome`].
    pub async fn execute(&self, component: &Component, call: &Arc<Call>) -> Result<Outcome, RuntimeError> {
        let mut store = Store::new(&component.engine, Guest::new(call, component.reach.clone()));
        store.limiter(|guest| &mut guest.limits);
        store.epoch_deadline_async_yield_and_update(SLICE_TICKS);
        // Without it the first deadline is long past, and every call yields, and changes threads, at once.
        store.set_epoch_deadline(FIRST_TICKS);
        // What the guest may have the host copy in one host call, beside what its own result may take.
        store.set_hostcall_fuel(usize_of(call.memory_bytes));
        store.set_max_component_handles(guest::MAX_HANDLES);
        if let Some(tasks) = store.concurrent_resource_table() {
            tasks.set_max_capacity(guest::MAX_TASKS);
        }
        match &component.ready {
            Ready::Execute(function) => {
                run(function, call, &mut store).await.or_else(|error| failure(&error, store.data()))
            }
            // Apart, so that the others need no room for them.
            Ready::Http(handler) => Box::pin(http::run(handler, call, store)).await,
            Ready::Command(command) => Box::pin(command::run(command, call, store)).await,
        }
    }
}

async fn run(function: &FunctionPre<Guest>, call: &Call, store: &mut Store<Guest>) -> Result<Outcome, wasmtime::Error> {
    let function = function.instantiate_async(&mut *store).await?;
    // Not borrowed from the guest's memory, which the guest frees before this comes back. The copy is bounded
    // by the fuel for host calls.
    let result = function.call_execute(&mut *store, &call.payload).await?;
    let limit = usize_of(call.result_bytes);
    match result {
        Ok(text) if text.len() > limit => {
            let detail = format!("the result has {} bytes, and may have {limit}", text.len());
            Ok(Err(Failure::new(FailureKind::ResultTooLarge, detail)))
        }
        Ok(text) => Ok(Ok(text)),
        Err(text) => Ok(Err(Failure::new(FailureKind::Failed, cut(&text, limit.min(MAX_ERROR))))),
    }
}

/// The first `limit` bytes of `text`, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// Whose fault an error is, and which.
fn failure(error: &wasmtime::Error, guest: &Guest) -> Result<Outcome, RuntimeError> {
    if let Some(starved) = guest.limits.starved() {
        return Ok(Err(starved));
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        let detail = format!("the function exited with code {} before it gave a result", exit.0);
        return Ok(Err(Failure::new(FailureKind::Failed, detail)));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Ok(Err(Failure::new(FailureKind::Trapped, format!("the function crashed: {trap}"))));
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Err(RuntimeError::Exhausted(format!("{error:#}")));
    }
    // What is left are rules of the component model that the guest broke, and limits that it met.
    Ok(Err(Failure::new(FailureKind::Trapped, format!("the function crashed: {}", error.root_cause()))))
}

fn host(error: wasmtime::Error) -> RuntimeError {
    RuntimeError::Host(format!("{error:#}"))
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Side {
    fn new(abi: Abi, sizes: Sizes) -> Result<Self, RuntimeError> {
        let mut config = settings(abi);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(abi, sizes)));
        let engine = match wasmtime::Engine::new(&config) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!("no pool of instances, each is made on demand: {error:#}");
                wasmtime::Engine::new(&settings(abi)).map_err(host)?
            }
        };
        let linker = linker(&engine, abi).map_err(host)?;
        Ok(Self { engine, linker })
    }
}

/// A pool with a place for each call and some to spare, because a call may take more than one memory.
fn pool(abi: Abi, sizes: Sizes) -> PoolingAllocationConfig {
    let calls = u32::try_from(sizes.concurrency.saturating_add(8)).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(16))
        .total_memories(calls.saturating_mul(2))
        .total_tables(calls.saturating_mul(4))
        .total_stacks(calls.saturating_mul(if abi == Abi::Async { ASYNC_STACKS } else { 1 }))
        .max_core_instances_per_component(guest::MAX_INSTANCES)
        .max_memories_per_component(guest::MAX_MEMORIES)
        .max_tables_per_component(guest::MAX_TABLES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(usize_of(sizes.memory_bytes).min(4 << 30))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(64 * 1024)
        .async_stack_keep_resident(0)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// What the host offers: the function's own context, and WASI 0.2 with HTTP whole, beside it WASI 0.3 for the async
/// ABI, though without a grant its files, sockets and environment are empty and no request goes out; and [`offered`].
fn linker(engine: &wasmtime::Engine, abi: Abi) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if abi == Abi::Async {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    guest::add_to_linker(&mut linker)?;
    offered::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The names of what is compiled for each ABI. Both are told apart by settings that are here, beside what they have in
/// common with the plain engine.
fn compatibility(plain: &wasmtime::Engine) -> [String; 2] {
    let mut hasher = DefaultHasher::new();
    plain.precompile_compatibility_hash().hash(&mut hasher);
    // Two builds of the server may differ in what they link, too.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    let hash = hasher.finish();
    [format!("{hash:016x}"), format!("{hash:016x}-async")]
}

/// The thread that moves the engines' epochs on; ends with its owner.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine, concurrent: Arc<OnceLock<Side>>) -> Result<Self, RuntimeError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(TICK);
                    engine.increment_epoch();
                    if let Some(concurrent) = concurrent.get() {
                        concurrent.engine.increment_epoch();
                    }
                }
            })
            .map_err(|error| RuntimeError::Host(format!("cannot start the epoch thread: {error}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It holds nothing that could make it panic, and there is nothing to do if it did.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests;
