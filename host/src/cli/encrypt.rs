//! `sharpfaas encrypt` and `decrypt`

use std::path::{Path, PathBuf};

use chrono::Utc;
use clap::Args;
use uuid::Uuid;

use super::{Failure, Terminal, run::read, token::lifetime};
use crate::security::jwe::{Claims, Keys};

/// `encrypt`
#[derive(Debug, Args)]
pub struct EncryptArgs {
    /// The payload; without it, it is read from the file of --payload-file, or from standard input.
    pub payload: Option<String>,
    /// A file that holds the payload; '-' is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    pub payload_file: Option<PathBuf>,
    /// The file that holds the key: base64url of 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// The id by which the server knows the key.
    #[arg(long)]
    pub kid: String,
    /// The one function that it is for.
    #[arg(long = "for", value_name = "LANE/FUNCTION")]
    pub target: Option<String>,
    /// How long it is good for, as in 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub expires: Option<u64>,
    /// Let it be used once; it must expire, too.
    #[arg(long, requires = "expires")]
    pub once: bool,
}

/// `decrypt`
#[derive(Debug, Args)]
pub struct DecryptArgs {
    /// What to decrypt; without it, it is read from standard input.
    pub text: Option<String>,
    /// The file that holds the key: base64url of 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// The id of the key.
    #[arg(long)]
    pub kid: String,
}

fn keys(file: &Path, kid: &str) -> Result<Keys, Failure> {
    let key = read(file)?;
    Keys::new([(kid, key.trim())]).map_err(|error| Failure::Usage(error.to_string()))
}

/// Prints the payload, encrypted.
pub fn encrypt(args: EncryptArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let payload = match (args.payload, args.payload_file) {
        (Some(payload), _) => payload,
        (None, file) => read(&file.unwrap_or_else(|| "-".into()))?,
    };
    let exp = args.expires.map(|seconds| Utc::now().timestamp() as f64 + seconds as f64);
    let claims = Claims { exp, jti: args.once.then(|| Uuid::now_v7().to_string()), sub: args.target };
    let keys = keys(&args.key_file, &args.kid)?;
    let sealed = keys.seal(&args.kid, &claims, &payload);
    terminal.print(&sealed.ok_or_else(|| Failure::local("the system gives no random numbers"))?)
}

/// Prints what was encrypted.
pub fn decrypt(args: DecryptArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let text = match args.text {
        Some(text) => text,
        None => read(Path::new("-"))?,
    };
    let keys = keys(&args.key_file, &args.kid)?;
    let opened = keys.open(text.trim()).map_err(|why| Failure::local(format!("it cannot be decrypted: {why}")))?;
    terminal.print(&opened.text)
}
