//! `sharpfaas dev`
//!
//! Build, push, run, and again when a file changes. Whatever fails is shown and waited out, but for the server's end.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    signal::unix::{SignalKind, signal},
};

use super::{
    Client, Failure, Terminal,
    client::{ClientArgs, ServerUrl},
    hub::Hub,
    project::{Built, Project},
    push::Upload,
    run,
};
use crate::function::{FunctionName, Lane};

mod server;
mod watch;

use server::DevServer;
use watch::{Change, Watch};

/// How long the server may be silent: it compiles a component before it answers.
const SILENCE: Duration = Duration::from_secs(3600);
/// The file of a project that holds the payload where none is given.
const PAYLOAD: &str = "payload.json";

/// `dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The project's folder.
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// What the function gets, JSON as a rule; without it the project's payload.json, or nothing.
    #[arg(long, conflicts_with = "payload_file")]
    pub payload: Option<String>,
    /// Read the payload from this file, and run again when it changes.
    #[arg(long, value_name = "FILE")]
    pub payload_file: Option<PathBuf>,
    /// The lane to push to.
    #[arg(long, default_value = "dev")]
    pub lane: Lane,
    /// The server to push to, which keeps every version; without it one is started, and its data is gone afterwards.
    #[arg(long, value_name = "URL")]
    pub server: Option<ServerUrl>,
    /// A file that holds the token to use with --server; without it the variable SHARPFAAS_TOKEN holds it.
    #[arg(long, env = "SHARPFAAS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The configuration of the server that is started; without it the defaults.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub config: Option<PathBuf>,
}

/// Builds and runs until ctrl-c.
pub async fn dev(args: DevArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("no signals can be had: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let project = Project::find(&args.path)?;
    let payload = Payload::of(args.payload, args.payload_file, &project)?;
    let mut own = match args.server {
        Some(_) => None,
        None => Some(DevServer::start(args.config.as_deref(), &project.folder).await?),
    };
    let client = match (args.server, &own) {
        (Some(server), _) => {
            Client::patient(&ClientArgs { server, token_file: args.token_file, json: false }, SILENCE)?
        }
        (None, Some(own)) if args.config.is_some() => Client::patient(
            &ClientArgs { server: own.url().clone(), token_file: args.token_file, json: false },
            SILENCE,
        )?,
        // It asks for no token, and is to be told none.
        (None, Some(own)) => Client::without_token(own.url(), SILENCE)?,
        (None, None) => return Err(Failure::local("there is no server")),
    };
    terminal.note(&format!("server: {}", client.server()));
    let session = Session { project, client, lane: args.lane, payload };
    let ended = tokio::select! {
        outcome = session.run(terminal) => outcome,
        failure = ended(own.as_mut()) => Err(failure),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if let Some(own) = own {
        own.stop().await;
    }
    ended
}

/// Waits for the end of a server of ours; of another's for ever.
async fn ended(own: Option<&mut DevServer>) -> Failure {
    match own {
        Some(server) => server.failed().await,
        None => std::future::pending().await,
    }
}

/// Where the payload comes from.
enum Payload {
    Text(String),
    File(PathBuf),
}

impl Payload {
    fn of(text: Option<String>, file: Option<PathBuf>, project: &Project) -> Result<Self, Failure> {
        let own = project.folder.join(PAYLOAD);
        Ok(match (text, file) {
            (Some(text), _) => Self::Text(text),
            (None, Some(file)) => {
                run::read(&file)?;
                Self::File(file)
            }
            (None, None) if own.is_file() => Self::File(own),
            (None, None) => Self::Text(String::new()),
        })
    }

    fn read(&self) -> Result<String, Failure> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(file) => run::read(file),
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::Text(_) => None,
            Self::File(file) => Some(file),
        }
    }
}

/// What stays the same from one build to the next.
struct Session {
    project: Project,
    client: Client,
    lane: Lane,
    payload: Payload,
}

/// A version that was pushed, ready to be run.
struct Pushed {
    name: FunctionName,
    version: String,
}

/// What makes it go on.
enum Next {
    Build,
    Run,
    /// A line that was typed: with something in it, it is the payload from now on.
    Typed(String),
}

impl Session {
    async fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut watch = Watch::of(&self.project.folder, self.payload.file());
        let mut typed = typed_lines();
        let mut payload = None;
        loop {
            let pushed = match self.push(terminal).await {
                Ok(pushed) => Some(pushed),
                Err(Failure::Unread) => return Err(Failure::Unread),
                Err(failure) => {
                    failure.show(terminal);
                    None
                }
            };
            loop {
                if let Some(pushed) = &pushed {
                    tokio::select! {
                        outcome = self.call(pushed, payload.as_deref(), terminal) => match outcome {
                            Ok(()) => {}
                            Err(Failure::Unread) => return Err(Failure::Unread),
                            Err(failure) => failure.show(terminal),
                        },
                        // Its connection is closed with it, which cancels the call.
                        change = watch.changed() => match change {
                            Change::Project => break,
                            Change::Payload => {
                                payload = None;
                                continue;
                            }
                        },
                    }
                }
                terminal.note(if typed.is_some() {
                    "waiting for changes; enter runs it again, a line is its new payload, ctrl-c ends"
                } else {
                    "waiting for changes; ctrl-c ends"
                });
                match next(&mut watch, &mut typed).await {
                    Next::Build => break,
                    Next::Run => payload = None,
                    Next::Typed(line) if line.trim().is_empty() => {}
                    Next::Typed(line) => payload = Some(line),
                }
            }
        }
    }

    async fn push(&self, terminal: &mut Terminal) -> Result<Pushed, Failure> {
        terminal.note("building");
        let started = Instant::now();
        let built = self.project.build().await?;
        let build_seconds = started.elapsed().as_secs_f64();
        let package = self.project.package(&built)?;
        let Built { name, kind, .. } = built;
        let upload = Upload { name: &name, lane: &self.lane, kind, entry: None, new_version: false };
        let started = Instant::now();
        let (_, published) = self.client.fetch(upload.request(&self.client, package, None)?).await?;
        let super::push::Published { version, .. } = published;
        let push_seconds = started.elapsed().as_secs_f64();
        terminal.note(&format!(
            "{name} {version} in {}: built in {build_seconds:.1} s, pushed in {push_seconds:.1} s",
            self.lane
        ));
        Ok(Pushed { name, version })
    }

    /// Runs what was pushed, shows what it prints as it does, and prints its result.
    async fn call(&self, pushed: &Pushed, typed: Option<&str>, terminal: &mut Terminal) -> Result<(), Failure> {
        let payload = match typed {
            Some(line) => line.to_owned(),
            None => self.payload.read()?,
        };
        let mut hub = Hub::connect(&self.client, &["functions"], "").await?;
        hub.send(run::message(&pushed.name, &self.lane, &pushed.version, &payload)?).await?;
        loop {
            let (_, event) = hub.next().await?;
            if let Some(end) = event.show(terminal) {
                return end;
            }
        }
    }
}

/// What is typed, where somebody can type.
fn typed_lines() -> Option<Lines<BufReader<Stdin>>> {
    // SAFETY: both read what the kernel knows of this process and its terminal, and take no memory of ours.
    let in_front = unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() };
    // To read from a terminal in the background stops the process.
    let can = in_front || !std::io::stdin().is_terminal();
    can.then(|| BufReader::new(tokio::io::stdin()).lines())
}

async fn next(watch: &mut Watch, typed: &mut Option<Lines<BufReader<Stdin>>>) -> Next {
    loop {
        let line = async {
            match typed {
                Some(lines) => lines.next_line().await.ok().flatten(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = watch.changed() => return match change {
                Change::Project => Next::Build,
                Change::Payload => Next::Run,
            },
            line = line => match line {
                Some(line) => return Next::Typed(line),
                None => *typed = None,
            },
        }
    }
}
