//! The command line: `serve`, and the verbs of the client.
//!
//! [`parse`] turns arguments into a [`Cli`], once and whole; a client verb then runs by [`run_client`]
//! and becomes an exit code. Results go to standard output alone, so that scripts can pipe them;
//! console lines, progress and errors go to standard error.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

mod audit;
mod build;
mod client;
mod dev;
mod encrypt;
mod failure;
mod functions;
mod history;
mod hub;
mod jobs;
mod new;
mod package;
mod project;
mod push;
mod run;
mod schedules;
mod tail;
mod terminal;
#[cfg(test)]
mod tests;
mod token;

use client::Client;
use failure::Failure;
use terminal::Terminal;

/// What the exit codes mean, for `--help`.
const EXIT_CODES: &str = "Exit codes:
  0  success
  1  the function failed: it said so, crashed, took too long, was cancelled or could not be built
  2  the command line is wrong
  3  the server refused, failed or could not be reached";

/// A function host: WebAssembly components and native programs, by name, lane and version.
#[derive(Debug, Parser)]
#[command(name = "sharpfaas", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Compile a component; the server starts this itself, as a process of its own.
    #[command(hide = true)]
    CompileComponent(CompileComponentArgs),
    /// A verb of the client.
    #[command(flatten)]
    Client(ClientCommand),
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration; without it ./config.toml, and where that is not there, the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on instead of the configured ones; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The file of a token that may do everything, in place of security.admin_token_file; where it is not there,
    /// a token is made and written to it.
    #[arg(long, value_name = "FILE")]
    pub admin_token: Option<PathBuf>,
    /// The folder for store, artifacts and database where the configuration keeps them in `data`.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Print the URL on standard output when ready, and stop when the process that started this one ends: for `dev`.
    #[arg(long, hide = true)]
    pub child: bool,
}

/// `compile-component`
#[derive(Debug, Args)]
pub struct CompileComponentArgs {
    /// As the server gives them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// The verbs for those who write and use functions.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Make a folder with a function to start from.
    #[command(after_help = EXIT_CODES)]
    New(new::NewArgs),
    /// Build the function of a folder, in Rust, JavaScript or Python, and make its package.
    #[command(after_help = EXIT_CODES)]
    Build(build::BuildArgs),
    /// Build and run the function of a folder, and again whenever a file of it changes.
    #[command(after_help = EXIT_CODES)]
    Dev(dev::DevArgs),
    /// Publish a function: a folder, a .wasm component, a program or a zip.
    #[command(after_help = EXIT_CODES)]
    Push(push::PushArgs),
    /// Run a function, show what it prints and print its result.
    #[command(after_help = EXIT_CODES)]
    Run(run::RunArgs),
    /// Follow what a call prints, whoever made it, until it ends.
    #[command(after_help = EXIT_CODES)]
    Tail(tail::TailArgs),
    /// List functions, the versions of one, or what is known of one version.
    #[command(after_help = EXIT_CODES)]
    Functions(functions::FunctionsArgs),
    /// List what ran and what runs now, or show one call.
    #[command(after_help = EXIT_CODES)]
    History(history::HistoryArgs),
    /// Hand in runs for later, and look after them.
    #[command(after_help = EXIT_CODES)]
    Jobs(jobs::JobsArgs),
    /// Make, list and change schedules, which run a function again and again.
    #[command(after_help = EXIT_CODES)]
    Schedules(schedules::SchedulesArgs),
    /// Make, list and revoke the tokens with which a server is used.
    #[command(after_help = EXIT_CODES)]
    Token(token::TokenArgs),
    /// List who pushed, managed, or tried what they may not.
    #[command(after_help = EXIT_CODES)]
    Audit(audit::AuditArgs),
    /// Encrypt a payload, as a call with payloadEncrypted=true takes it.
    #[command(after_help = EXIT_CODES)]
    Encrypt(encrypt::EncryptArgs),
    /// Decrypt a result, or a line of output, that came encrypted.
    #[command(after_help = EXIT_CODES)]
    Decrypt(encrypt::DecryptArgs),
}

/// Parses the arguments of this process; ends it where they are wrong or ask for help.
#[must_use]
pub fn parse() -> Cli {
    Cli::parse()
}

/// Runs a verb of the client to its end.
#[must_use]
pub fn run_client(command: ClientCommand) -> ExitCode {
    let mut terminal = Terminal::of_process();
    // Fails when there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(command, &mut terminal));
            // What still reads a file or writes to a terminal is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::local(format!("no threads could be started: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(&mut terminal);
            failure.exit_code()
        }
    }
}

async fn execute(command: ClientCommand, terminal: &mut Terminal) -> Result<(), Failure> {
    match command {
        ClientCommand::New(args) => new::new(&args, terminal),
        ClientCommand::Build(args) => build::build(args, terminal).await,
        ClientCommand::Dev(args) => dev::dev(args, terminal).await,
        ClientCommand::Push(args) => push::push(args, terminal).await,
        ClientCommand::Run(args) => run::run(args, terminal).await,
        ClientCommand::Tail(args) => tail::tail(args, terminal).await,
        ClientCommand::Functions(args) => functions::functions(args, terminal).await,
        ClientCommand::History(args) => history::history(args, terminal).await,
        ClientCommand::Jobs(args) => jobs::jobs(args, terminal).await,
        ClientCommand::Schedules(args) => schedules::schedules(args, terminal).await,
        ClientCommand::Token(args) => token::token(args, terminal).await,
        ClientCommand::Audit(args) => audit::audit(args, terminal).await,
        ClientCommand::Encrypt(args) => encrypt::encrypt(args, terminal),
        ClientCommand::Decrypt(args) => encrypt::decrypt(args, terminal),
    }
}
