//! `sharpfaas push`

use std::{path::PathBuf, time::Duration};

use clap::Args;
use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{
    Body, Method, RequestBuilder,
    multipart::{Form, Part},
};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::{
    Client, Failure, Terminal,
    client::ClientArgs,
    functions::named,
    package::{Package, name_of},
    terminal,
};
use crate::function::{EntryName, FunctionName, FunctionType, Lane};

/// How long the server may be silent: it compiles a component before it answers.
const SILENCE: Duration = Duration::from_secs(3600);
/// A push that takes longer than this is a long one, and gets a progress bar.
const LONG: Duration = Duration::from_millis(500);
/// How much is read from the disk at once, in bytes.
const PIECE: usize = 64 * 1024;
/// How many of the files that were left out are named.
const LISTED: usize = 5;

/// `push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A folder, a .wasm component, a native program or a zip; all but a zip are zipped first, without
    /// what begins with a dot.
    pub path: PathBuf,
    /// The function's name; that of PATH where none is given.
    #[arg(long)]
    pub name: Option<FunctionName>,
    /// The lane to publish to.
    #[arg(long, default_value = "dev")]
    pub lane: Lane,
    /// dll for a WebAssembly component, exe for a native program; PATH tells where none is given.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<FunctionType>,
    /// Begin the next major version.
    #[arg(long)]
    pub new_version: bool,
    /// The file in the package that runs, where that is not plain.
    #[arg(long, value_name = "FILE")]
    pub entry: Option<EntryName>,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A version that is to be published.
pub struct Upload<'a> {
    /// The function's name.
    pub name: &'a FunctionName,
    /// The lane to publish to.
    pub lane: &'a Lane,
    /// What kind of function it is.
    pub kind: FunctionType,
    /// The file that runs, where that is not plain.
    pub entry: Option<&'a EntryName>,
    /// Whether it begins the next major version.
    pub new_version: bool,
}

impl Upload<'_> {
    /// The request that sends the package; a bar shows how far it is.
    pub fn request(
        &self,
        client: &Client,
        package: Package,
        bar: Option<&ProgressBar>,
    ) -> Result<RequestBuilder, Failure> {
        let mut query =
            vec![("functionName", self.name.as_str()), ("type", self.kind.as_str()), ("lane", self.lane.as_str())];
        if self.new_version {
            query.push(("newVersion", "true"));
        }
        if let Some(entry) = self.entry {
            query.push(("entryFileName", entry.as_str()));
        }
        let request = client.request(Method::POST, &["api", "function", "pushfunction"]).query(&query);
        Ok(request.multipart(form(package, format!("{}.zip", self.name), bar.unwrap_or(&ProgressBar::hidden()))?))
    }
}

/// What the server says of a version that it published.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    function_name: String,
    lane: String,
    /// The version that it became.
    pub version: String,
    #[serde(rename = "type")]
    kind: String,
    shape: Option<String>,
    #[serde(default)]
    asks: Option<serde_json::Value>,
    #[serde(default)]
    granted: Option<serde_json::Value>,
    sha256: String,
    size: u64,
}

/// Makes the package, sends it, and prints the version that it became.
pub async fn push(args: PushArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let name = match args.name {
        Some(name) => name,
        None => name_of(&args.path)?,
    };
    let package = Package::of(&args.path, args.entry.as_ref())?;
    if !package.left_out.is_empty() {
        let named: Vec<&str> = package.left_out.iter().take(LISTED).map(String::as_str).collect();
        let more = package.left_out.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        terminal.note(&format!("left out, because they are hidden: {}{more}", named.join(", ")));
    }

    let kind = args.kind.unwrap_or(package.kind);
    let upload =
        Upload { name: &name, lane: &args.lane, kind, entry: args.entry.as_ref(), new_version: args.new_version };
    let client = Client::patient(&args.client, SILENCE)?;
    let bar = bar(package.size);
    let request = upload.request(&client, package, Some(&bar))?;
    let (text, published) = {
        let answer = client.fetch::<Published>(request);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            () = tokio::time::sleep(LONG) => {
                if terminal.is_interactive() && !args.client.json {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(LONG / 5);
                }
                let answer = answer.await;
                bar.finish_and_clear();
                answer
            }
        }?
    };

    if args.client.json {
        return terminal.print(&text);
    }
    let Published { function_name, lane, version, kind, shape, asks, granted, sha256, size } = published;
    if asks.is_some() {
        terminal.note(&format!("it asks for: {}; granted: {}", named(asks.as_ref()), named(granted.as_ref())));
    }
    let kind = shape.map_or(kind.clone(), |shape| format!("{kind}, {shape}"));
    let size = terminal::size(size);
    terminal.print(&format!("{function_name} {version} in {lane} ({kind}, {size}, sha256 {sha256})"))
}

fn bar(size: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    // Only a template that does not parse is an error, and then the bar has the common form.
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.with_message("sending")
}

/// The body of the request: read from the disk as it is sent, so that memory does not grow with it.
fn form(package: Package, name: String, bar: &ProgressBar) -> Result<Form, Failure> {
    let bar = bar.clone();
    let size = package.size;
    let file = tokio::fs::File::from_std(package.file);
    let pieces = ReaderStream::with_capacity(file, PIECE).inspect_ok(move |piece| {
        bar.inc(piece.len() as u64);
        if bar.position() >= size {
            bar.set_message("sent; the server checks and compiles");
        }
    });
    let part = Part::stream_with_length(Body::wrap_stream(pieces), size)
        .file_name(name)
        .mime_str("application/zip")
        .map_err(|error| Failure::local(error.to_string()))?;
    Ok(Form::new().part("file", part))
}
