//! What a store holds for its guest: its context, its console, and the bounds on what it may take.

use std::{sync::Arc, time::Instant};

use wasmtime::{
    ResourceLimiter, StoreContextMut,
    component::{HasSelf, Linker, ResourceTable, WasmList},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p2::pipe::MemoryInputPipe};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{
    MAX_TABLE_ELEMENTS,
    bindings::sharpfaas::function::{
        console::Output,
        invocation::{self, Context},
    },
    console::Printer,
    outgoing::Outgoing,
    reach::{Allowed, Reach},
    usize_of,
};
use crate::{
    function::{Failure, FailureKind, Stream},
    runtime::{Call, capture::Capture},
};

/// How many core instances one component may be made of.
pub(super) const MAX_INSTANCES: u32 = 64;
/// How many memories they may have together.
pub(super) const MAX_MEMORIES: u32 = 16;
/// How many tables.
pub(super) const MAX_TABLES: u32 = 64;
/// How many handles to resources a guest may hold in its own tables.
pub(super) const MAX_HANDLES: usize = 10_000;
/// How many tasks, streams and futures of the async ABI it may have.
pub(super) const MAX_TASKS: usize = 10_000;
/// How many random bytes the host makes in one call.
const MAX_RANDOM: u64 = 1024 * 1024;
/// The interface of the console, in `guest-sdk/wit`.
const CONSOLE: &str = "sharpfaas:function/console@1.0.0";
/// How many resources the host may hold for it.
const MAX_RESOURCES: usize = 10_000;

/// The data of one call's store.
pub(super) struct Guest {
    /// Made when the guest first asks for something of it: many never do.
    wasi: Option<WasiCtx>,
    resources: ResourceTable,
    pub(super) limits: Limiter,
    /// Made when it first asks for HTTP.
    http: Option<Box<Http>>,
    /// Whether and what it may reach, and that worked out when it first asks for something.
    reach: Option<Arc<Reach>>,
    allowed: Option<Arc<Allowed>>,
    call: Arc<Call>,
}

/// What it has of HTTP.
struct Http {
    context: WasiHttpCtx,
    hooks: Outgoing,
}

impl Guest {
    pub(super) fn new(call: &Arc<Call>, reach: Option<Arc<Reach>>) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        Self {
            wasi: None,
            resources,
            limits: Limiter { memory_bytes: usize_of(call.memory_bytes), taken: 0, refused: false },
            http: None,
            reach,
            allowed: None,
            call: call.clone(),
        }
    }

    /// What it may reach; none: nothing.
    pub(super) fn allowed(&mut self) -> Option<&Arc<Allowed>> {
        if self.allowed.is_none() {
            let reach = self.reach.as_ref()?;
            self.allowed = Some(Arc::new(reach.allowed(&self.call.lane, &self.call.name)));
        }
        self.allowed.as_ref()
    }

    /// The call that it is for.
    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    pub(super) fn resources(&self) -> &ResourceTable {
        &self.resources
    }

    pub(super) fn resources_mut(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    /// Gives it the arguments, environment and standard input of a command line, whose output is kept.
    pub(super) fn be_command(&mut self, capture: &Arc<Capture>) {
        let mut wasi = self.wasi_with(Some(capture));
        let call = &self.call;
        wasi.args(&[call.name.as_str(), call.argument()])
            .envs(&call.variables())
            .stdin(MemoryInputPipe::new(call.payload.clone()));
        self.wasi = Some(wasi.build());
    }

    /// WASI without files, sockets and arguments, and with no other environment than what is granted.
    fn wasi_with(&mut self, capture: Option<&Arc<Capture>>) -> WasiCtxBuilder {
        let call = self.call.clone();
        let printer = |stream| Printer { console: call.console.clone(), stream, capture: capture.cloned() };
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(printer(Stream::Stdout))
            .stderr(printer(Stream::Stderr))
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        for (name, value) in self.allowed().into_iter().flat_map(|allowed| &allowed.environment) {
            wasi.env(name, value);
        }
        wasi
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.wasi = Some(self.wasi_with(None).build());
        }
        // Just made where it was not there.
        let ctx = self.wasi.get_or_insert_with(|| WasiCtxBuilder::new().build());
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let allowed = if self.http.is_none() { self.allowed().cloned() } else { None };
        let http = self
            .http
            .get_or_insert_with(|| Box::new(Http { context: WasiHttpCtx::new(), hooks: Outgoing::new(allowed) }));
        WasiHttpCtxView { ctx: &mut http.context, table: &mut self.resources, hooks: &mut http.hooks }
    }
}

impl invocation::Host for Guest {
    fn current(&mut self) -> Context {
        let call = &self.call;
        let left = call.deadline.saturating_duration_since(Instant::now());
        Context {
            invocation_id: call.id.to_string(),
            caller_id: call.caller_id.as_ref().map(ToString::to_string),
            function_name: call.name.to_string(),
            lane: call.lane.to_string(),
            version: call.version.to_string(),
            parameters: call.parameters.clone(),
            deadline_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Offers our own interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    invocation::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    // By hand, because the bindings would copy the text into a list first.
    linker.instance(CONSOLE)?.func_wrap("print", print)
}

fn print(guest: StoreContextMut<'_, Guest>, (to, text): (Output, WasmList<u8>)) -> wasmtime::Result<()> {
    let stream = match to {
        Output::Stdout => Stream::Stdout,
        Output::Stderr => Stream::Stderr,
    };
    guest.data().call.console.write(stream, text.as_le_slice(&guest));
    Ok(())
}

/// Counts the memory of all a guest's memories together, where wasmtime's own limits count each.
pub(super) struct Limiter {
    memory_bytes: usize,
    taken: usize,
    refused: bool,
}

impl Limiter {
    /// The failure of a guest that was refused memory at any time: whatever it ended with, that is why.
    pub(super) fn starved(&self) -> Option<Failure> {
        let limit = self.memory_bytes / (1024 * 1024);
        let detail = || format!("the function wanted more memory than the {limit} MiB it may have");
        self.refused.then(|| Failure::new(FailureKind::MemoryExceeded, detail()))
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let taken = self.taken.saturating_add(desired.saturating_sub(current));
        if taken > self.memory_bytes {
            self.refused = true;
            return Ok(false);
        }
        self.taken = taken;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}
