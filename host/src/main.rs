//! The binary `sharpfaas`: the server, and the commands that talk to one.

use std::{io::Write as _, path::Path, process::ExitCode};

use sharpfaas_host::{
    allocator::Allocator,
    artifacts,
    cli::{self, Command, ServeArgs},
    config::Config,
    server::Server,
    telemetry,
};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The configuration that is read where none is named.
const CONFIG: &str = "config.toml";

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Client(command) => cli::run_client(command),
        Command::CompileComponent(args) => ExitCode::from(artifacts::compile_in_child(args.arguments)),
        Command::Serve(args) => match serve(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        },
    }
}

fn serve(args: ServeArgs) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut config = match args.config {
        Some(path) => Config::read(&path).map_err(|error| text(&error))?,
        None if Path::new(CONFIG).exists() => Config::read(Path::new(CONFIG)).map_err(|error| text(&error))?,
        None => Config::default(),
    };
    if let Some(data) = args.data {
        config = config.with_data(&data);
    }
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    if let Some(file) = args.admin_token {
        config.security.admin_token_file = Some(file);
    }
    if args.child {
        // Of the thread that started this process, which with `dev` is the main one.
        let tied = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
        tied.map_err(|error| format!("cannot be tied to its parent: {error}"))?;
    }
    telemetry::start(&config.server)?;
    let server = Server::bind(config).map_err(|error| text(&error))?;
    let url = args.child.then(|| server.url());
    let started = |_| {
        if let Some(url) = url {
            // Whoever does not read it is gone, and so is this process soon.
            let _ = writeln!(std::io::stdout(), "{url}");
        }
    };
    server.run(started).map_err(|error| text(&error))
}
