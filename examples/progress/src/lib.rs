//! Works in steps and prints each, to be watched while it runs: `{"steps": 5, "delayMs": 200}`.
//!
//! It reads its context too: which call it is, and how much time is left. With the parameter `verbose`
//! it prints more.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sharpfaas::{Error, Invocation};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Work {
    steps: u32,
    delay_ms: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self { steps: 5, delay_ms: 200 }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    steps: u32,
    elapsed_ms: u128,
    function: String,
    lane: String,
    version: String,
}

#[sharpfaas::function]
fn progress(work: Work) -> Result<Done, Error> {
    let started = Instant::now();
    let invocation = sharpfaas::invocation();
    let caller = invocation.caller_id.as_deref().unwrap_or("somebody");
    println!("{} {} in {} for {caller}", invocation.function_name, invocation.version, invocation.lane);
    let delay = Duration::from_millis(work.delay_ms);
    for step in 1..=work.steps {
        check_time(&invocation, delay, step)?;
        thread::sleep(delay);
        println!("step {step} of {}", work.steps);
        if invocation.parameter("verbose").is_some() {
            eprintln!("{:?} since the start, {:?} left", started.elapsed(), invocation.remaining());
        }
    }
    Ok(Done {
        steps: work.steps,
        elapsed_ms: started.elapsed().as_millis(),
        function: invocation.function_name,
        lane: invocation.lane,
        version: invocation.version,
    })
}

/// Says what is wrong while there is still time to, instead of being ended by the deadline.
fn check_time(invocation: &Invocation, delay: Duration, step: u32) -> Result<(), Error> {
    match invocation.remaining() {
        Some(left) if left < delay => {
            Err(Error::new(format!("step {step} takes {delay:?} and only {left:?} are left: give fewer steps")))
        }
        _ => Ok(()),
    }
}
