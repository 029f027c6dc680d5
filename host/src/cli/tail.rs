//! `sharpfaas tail`

use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::{
    Client, Failure, Terminal,
    client::ClientArgs,
    hub::{self, Event, Hub, Lost},
};

/// How often a lost connection is made again without a line in between.
const RECONNECTS: u32 = 10;
/// How long to wait before that; each time as long again.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// `tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The call's id.
    pub id: Uuid,
    /// Begin with the line of this number; the first has 0.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub from: u64,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Shows what a call prints until it ends, and how it ended. A connection that is lost is made again, and
/// goes on with the line after the last one.
pub async fn tail(args: TailArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (mut next, mut lost) = (args.from, 0);
    loop {
        let before = next;
        match follow(&client, args.id, &mut next, args.client.json, terminal).await {
            Ok(()) => return Ok(()),
            Err(Lost::Refused(failure)) => return Err(failure),
            Err(Lost::Connection(failure)) => {
                lost = if next > before { 0 } else { lost + 1 };
                if lost > RECONNECTS {
                    return Err(failure);
                }
                tokio::time::sleep(RECONNECT_AFTER * lost).await;
            }
        }
    }
}

async fn follow(client: &Client, id: Uuid, next: &mut u64, json: bool, terminal: &mut Terminal) -> Result<(), Lost> {
    let path = ["api", "invocations", &id.to_string(), "tail"];
    let mut hub = Hub::connect(client, &path, &format!("from={next}")).await?;
    loop {
        let (text, event) = hub.next().await?;
        if json {
            terminal.print(&text).map_err(Lost::Refused)?;
        }
        match event {
            Event::Output(line) => {
                *next = line.number + 1;
                if !json {
                    terminal.tailed_line(&line.line, line.stream == "stderr").map_err(Lost::Refused)?;
                }
            }
            Event::Skipped(lines) => {
                // Of lines that are gone there is no other chance.
                *next += lines;
                if !json {
                    terminal.note(&format!("[{lines} lines skipped]"));
                }
            }
            Event::Completed(_) => return Ok(()),
            Event::Failed(problem) => return Err(Lost::Refused(hub::failure(problem))),
            Event::Started(_) | Event::Other => {}
        }
    }
}
