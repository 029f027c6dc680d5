//! Talking to a server.

use std::{error::Error as _, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::de::DeserializeOwned;
use url::Url;

use super::{Failure, failure::Problem};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the server may be silent: it sends something on every stream each 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// How much of an answer that is no problem document is shown.
const SHOWN: usize = 200;

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The server to talk to.
    #[arg(long, env = "SHARPFAAS_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: ServerUrl,
    /// A file that holds the token to use; without it the variable SHARPFAAS_TOKEN holds it.
    #[arg(long, env = "SHARPFAAS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON on standard output, for programs: an object, or with 'run' and 'tail' one a line for each
    /// thing that happens.
    #[arg(long)]
    pub json: bool,
}

/// The address of a server, with a slash at its end.
#[derive(Debug, Clone)]
pub struct ServerUrl(Url);

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "it must be as in http://127.0.0.1:8080";
        let mut url = Url::parse(text).map_err(|error| format!("{error}: {example}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("not an address of a web server: {example}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("'?' and '#' don't belong in it: {example}"));
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// A server, and how its answers are read.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    server: ServerUrl,
    json: bool,
    /// The `Authorization` header, which is sent with everything.
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of that server.
    pub fn new(args: &ClientArgs) -> Result<Self, Failure> {
        Self::patient(args, SILENCE)
    }

    /// A client that bears a longer silence.
    pub fn patient(args: &ClientArgs, silence: Duration) -> Result<Self, Failure> {
        Self::with(&args.server, authorization(args)?, args.json, silence)
    }

    /// A client that shows nobody a token.
    pub fn without_token(server: &ServerUrl, silence: Duration) -> Result<Self, Failure> {
        Self::with(server, None, false, silence)
    }

    fn with(
        server: &ServerUrl,
        authorization: Option<HeaderValue>,
        json: bool,
        silence: Duration,
    ) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .default_headers(authorization.clone().map(|value| (AUTHORIZATION, value)).into_iter().collect())
            .user_agent(concat!("sharpfaas/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(silence)
            .build()
            .map_err(|error| Failure::local(format!("no HTTP client: {}", chain(&error))))?;
        Ok(Self { http, server: server.clone(), json, authorization })
    }

    /// A request for the resource that the path's parts name.
    pub fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.server.0.clone();
        // The URL has a host, so it can have a path.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        self.http.request(method, url)
    }

    /// The `Authorization` header that goes with every request.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The server's address.
    pub fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// The address of a WebSocket of the server.
    pub fn socket_url(&self, path: &[&str], query: &str) -> String {
        let mut url = self.server.0.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url.set_query((!query.is_empty()).then_some(query));
        // `http` becomes `ws`, `https` `wss`.
        url.as_str().replacen("http", "ws", 1)
    }

    /// Sends a request; any answer but a good one is a failure.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// The text of an answer.
    pub async fn text(&self, response: Response) -> Result<String, Failure> {
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends a request and reads its answer: as it came, and what this program needs of it.
    pub async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<(String, T), Failure> {
        let response = self.send(request).await?;
        let text = self.text(response).await?;
        let value = self.read(&text)?;
        Ok((text, value))
    }

    /// Reads what the server sent.
    pub fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, Failure> {
        serde_json::from_str(text).map_err(|error| {
            Failure::Other(format!("{} answers, but not as a sharpfaas server does: {error}", self.server))
        })
    }

    /// The failure of a request that found no server, or lost it.
    pub fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let server = &self.server;
        let cause = chain(error);
        Failure::Other(if error.is_connect() {
            format!("no server could be reached at {server}: {cause}; is it running? --server names another")
        } else if error.is_timeout() {
            format!("{server} did not answer in time")
        } else {
            format!("the connection to {server} failed: {cause}")
        })
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let text = match self.text(response).await {
            Ok(text) => text,
            Err(failure) => return failure,
        };
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) if !problem.code.is_empty() => {
                let document = if self.json { text } else { String::new() };
                Failure::Problem(Box::new(Problem { document, ..problem }))
            }
            _ => Failure::Other(self.foreign(status, &text)),
        }
    }

    /// Something between here and the server answered, or another server altogether.
    fn foreign(&self, status: StatusCode, text: &str) -> String {
        let shown: String = text.trim().chars().take(SHOWN).collect();
        format!("{} answered {status}, and not as a sharpfaas server does: {shown}", self.server)
    }
}

/// The header that the token makes, from the file or the environment: an argument would be for all to see.
fn authorization(args: &ClientArgs) -> Result<Option<HeaderValue>, Failure> {
    let token = match &args.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            text.map_err(|error| Failure::Usage(format!("--token-file {}: {error}", path.display())))?
        }
        None => std::env::var("SHARPFAAS_TOKEN").unwrap_or_default(),
    };
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| Failure::Usage("the token holds what a token can't hold".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The causes of an error, innermost last, which is where it says what happened.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
