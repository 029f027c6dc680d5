//! `GET /api/audit`: who did what.

use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Problem, Services, caller::Caller, error::ProblemDocument, fields::Fields};
use crate::{
    database::{AuditEntry, AuditQuery},
    security::Verb,
};

/// The largest page.
const MAX_PAGE: u64 = 500;
/// The page where none is asked for.
const PAGE: u64 = 50;

/// A page of the audit, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    entries: Vec<AuditView>,
    /// Give this as `before` to get the next page; none: there is none.
    next: Option<Uuid>,
}

/// Something that somebody did, or tried to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    id: Uuid,
    at: DateTime<Utc>,
    /// The token; none where the server asked for none.
    actor: Option<String>,
    /// From where.
    address: Option<String>,
    /// `push`, `denied`, `invocation.cancel`, `token.create` or `token.revoke`.
    action: String,
    /// To what.
    target: String,
    /// What else is to be known.
    detail: Option<String>,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, actor, address, action, target, detail } = entry;
        Self { id, at, actor, address, action, target, detail }
    }
}

/// Lists what was done, newest first.
#[utoipa::path(
    get,
    path = "/api/audit",
    tag = "tokens",
    params(
        ("actor" = Option<String>, Query, description = "By this token only"),
        ("action" = Option<String>, Query, description = "Of this kind only"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 500, description = "At most this many, 1 to 500; 50 where none is given"),
        ("before" = Option<Uuid>, Query, description = "Older than this: `next` of the page before"),
    ),
    responses(
        (status = 200, body = AuditPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.may_all(Verb::Manage)?;
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let wanted = AuditQuery {
        actor: fields.filter("actor", |text| Ok(text.to_owned()))?,
        action: fields.filter("action", |text| Ok(text.to_owned()))?,
        before: fields.filter("before", |text| text.parse().map_err(|_| Problem::invalid("before must be a UUID")))?,
        limit: limit + 1,
    };
    fields.done("'actor', 'action', 'limit' and 'before'")?;
    let database = services.database().clone();
    let mut found = services.spawn(async move { database.audit(&wanted).await }).await??;
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = found.last().filter(|_| more).map(|last| last.id);
    Ok(HttpResponse::Ok().json(AuditPage { entries: found.into_iter().map(Into::into).collect(), next }))
}
