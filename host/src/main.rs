//! The binary `sharpfaas`: the server, and the commands that talk to one.

use std::{path::Path, process::ExitCode};

use sharpfaas_host::{
    artifacts,
    cli::{self, Command, ServeArgs},
    config::Config,
    server::Server,
    telemetry,
};

/// Calls allocate in small pieces on many threads, which the system's allocator is slower at, and does not
/// give back as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    telemetry::start(&config.server)?;
    Server::bind(config).and_then(|server| server.run(|_| ())).map_err(|error| text(&error))
}
