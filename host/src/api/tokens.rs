//! `/api/tokens…`: who may do what.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Problem, Services,
    body::{self, Pace},
    caller::Caller,
    error::ProblemDocument,
};
use crate::{
    function::{ErrorCode, TokenName},
    security::{Scope, Scopes, Token, Verb, tokens::TokenError},
};

/// The largest body that describes a token, in bytes.
const MAX_BODY: u64 = 64 * 1024;
/// The longest life of a token that has an end, in seconds: 100 years.
const MAX_LIFE: u64 = 3_155_760_000;

/// A token to be made. Each scope is `LANE` or `LANE/FUNCTION`, in which `*` stands for any number of characters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Its name, which no other may have.
    name: String,
    /// Where it may push.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    push: Vec<Scope>,
    /// What it may run.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    run: Vec<Scope>,
    /// What it may see: functions, calls and their output.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    read: Vec<Scope>,
    /// Whose calls it may end; with `*`, it manages tokens too.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    manage: Vec<Scope>,
    /// How long it is good for, in seconds; none: until it is revoked.
    expires_seconds: Option<u64>,
}

/// A token, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenView<'a> {
    name: &'a str,
    #[schema(value_type = Vec<String>)]
    push: &'a [Scope],
    #[schema(value_type = Vec<String>)]
    run: &'a [Scope],
    #[schema(value_type = Vec<String>)]
    read: &'a [Scope],
    #[schema(value_type = Vec<String>)]
    manage: &'a [Scope],
    created_at: DateTime<Utc>,
    /// The token that made it.
    created_by: Option<&'a str>,
    expires_at: Option<DateTime<Utc>>,
    /// Whether its time is over.
    expired: bool,
}

impl<'a> From<&'a Token> for TokenView<'a> {
    fn from(token: &'a Token) -> Self {
        Self {
            name: token.name.as_str(),
            push: &token.scopes.push,
            run: &token.scopes.run,
            read: &token.scopes.read,
            manage: &token.scopes.manage,
            created_at: token.created_at,
            created_by: token.created_by.as_deref(),
            expires_at: token.expires_at,
            expired: token.has_expired(Utc::now()),
        }
    }
}

/// All tokens, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokensView<'a> {
    tokens: Vec<TokenView<'a>>,
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeToken {
    name: String,
    /// Its text, which is shown this once.
    token: String,
    expires_at: Option<DateTime<Utc>>,
    /// How many servers don't know it yet: they are cut off from the database.
    servers_behind: usize,
}

/// A token that was revoked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedToken {
    name: String,
    /// How many servers have not said that they know it: they are cut off from the database, and take no token
    /// any more within `security.stale_seconds`. No other server takes it from now on.
    servers_behind: usize,
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Database(error) => return error.into(),
            TokenError::Taken(_) | TokenError::Full | TokenError::NoManager => ErrorCode::TokenConflict,
            TokenError::Unknown(_) => ErrorCode::TokenNotFound,
            TokenError::NoRandomness(_) | TokenError::Scopes(_) => {
                tracing::error!(%error, "a token could not be made");
                return Self::new(ErrorCode::Internal, "the server could not do it; its log says why");
            }
        };
        Self::new(code, error.to_string())
    }
}

/// Makes a token. The first must manage everything: from then on every request needs one.
#[utoipa::path(
    post,
    path = "/api/tokens",
    tag = "tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "Made; its text is shown this once", body = MadeToken),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn create(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    caller.may_all(Verb::Manage)?;
    let body = body::read(&request, body, MAX_BODY, Pace::new(services.config().server.read_seconds)).await?;
    let NewToken { name, push, run, read, manage, expires_seconds } = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("the body must be a JSON object that describes a token: {error}")))?;
    let name: TokenName = name.parse()?;
    let scopes = Scopes { push, run, read, manage };
    if scopes.is_empty() {
        return Err(Problem::invalid("the token may do nothing: give it 'push', 'run', 'read' or 'manage'"));
    }
    if !scopes.is_bounded() {
        return Err(Problem::invalid("the token has too many scopes: 64 for each of push, run, read and manage"));
    }
    let expires_at = match expires_seconds {
        None => None,
        Some(life @ 1..=MAX_LIFE) => Some(Utc::now() + TimeDelta::seconds(i64::try_from(life).unwrap_or(i64::MAX))),
        Some(_) => return Err(Problem::invalid(format!("expiresSeconds must be 1 to {MAX_LIFE}"))),
    };
    let detail = serde_json::to_string(&scopes).unwrap_or_default();
    let entry = caller.entry("token.create", name.as_str()).with(detail);
    let (tokens, wanted) = (services.tokens().clone(), name.clone());
    let change = services.spawn(async move { tokens.create(wanted, &scopes, expires_at, entry).await }).await??;
    Ok(HttpResponse::Created().json(MadeToken {
        name: name.to_string(),
        token: change.made.expose(),
        expires_at,
        servers_behind: change.behind,
    }))
}

/// Lists the tokens.
#[utoipa::path(
    get,
    path = "/api/tokens",
    tag = "tokens",
    responses(
        (status = 200, body = TokensView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.may_all(Verb::Manage)?;
    let tokens = services.tokens().list();
    Ok(HttpResponse::Ok().json(TokensView { tokens: tokens.iter().map(|token| TokenView::from(&**token)).collect() }))
}

/// Revokes a token: when this is answered, no server of the database takes it any more.
#[utoipa::path(
    delete,
    path = "/api/tokens/{name}",
    tag = "tokens",
    params(("name" = String, Path, description = "The token's name")),
    responses(
        (status = 200, description = "Revoked", body = RevokedToken),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn revoke(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.may_all(Verb::Manage)?;
    let name: TokenName = path.parse()?;
    let entry = caller.entry("token.revoke", name.as_str());
    let (tokens, wanted) = (services.tokens().clone(), name.clone());
    let change = services.spawn(async move { tokens.revoke(wanted, entry).await }).await??;
    Ok(HttpResponse::Ok().json(RevokedToken { name: name.to_string(), servers_behind: change.behind }))
}
