//! `POST /api/function/pushfunction`: a package becomes the next version of its function.

use std::{io::Write, path::Path};

use actix_multipart::Multipart;
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use futures_util::StreamExt;
use ring::digest;
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    Problem, Services,
    body::{self, Pace},
    caller::Caller,
    error::ProblemDocument,
    fields::Fields,
    grants::Reach,
};
use crate::{
    config::Grant,
    function::{Digest, EntryName, ErrorCode, FunctionName, FunctionRef, FunctionType, Lane, Shape},
    metrics,
    publish::Push,
    security::Verb,
};

/// The part of the body that is the package.
const PART: &str = "file";
/// What the parts' heads and boundaries may take beside the package, in bytes.
const BESIDE_PACKAGE: u64 = 64 * 1024;

/// A published version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushResponse {
    function_name: String,
    lane: String,
    /// The version that it got.
    version: String,
    #[serde(rename = "type")]
    kind: FunctionType,
    /// The file that runs.
    entry: String,
    /// How it is run, of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    #[serde(flatten)]
    reach: Reach,
    /// Of the package.
    sha256: String,
    /// Of the package, in bytes.
    size: u64,
}

impl PushResponse {
    fn of(function: &FunctionRef, grants: &[Grant]) -> Self {
        Self {
            function_name: function.location.name.to_string(),
            lane: function.location.lane.to_string(),
            version: function.location.version.to_string(),
            kind: function.kind,
            entry: function.entry.to_string(),
            shape: function.shape,
            reach: Reach::of(function, grants),
            sha256: function.sha256.to_string(),
            size: function.size,
        }
    }
}

/// The package as multipart form data.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there to be described")]
struct PushForm {
    /// The zip.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Publishes a package.
#[utoipa::path(
    post,
    path = "/api/function/pushfunction",
    tag = "functions",
    params(
        ("functionName" = String, Query, description = "The function's name, unique in the store"),
        ("lane" = String, Query, description = "The lane to push to"),
        ("type" = Option<FunctionType>, Query, description = "`dll` (default): a WebAssembly component; `exe`: a native program"),
        ("newVersion" = Option<bool>, Query, description = "`true`: the next major version; else the next minor one"),
        ("entryFileName" = Option<String>, Query, description = "The file in the package that runs, where it can't be guessed"),
    ),
    request_body(content = PushForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Published", body = PushResponse),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn push(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let name = fields.require::<FunctionName>("functionName")?;
    let lane = fields.require::<Lane>("lane")?;
    let kind = fields.parse::<FunctionType>("type")?.unwrap_or_default();
    let new_version = fields.flag("newVersion")?;
    let entry = fields.parse::<EntryName>("entryFileName")?;
    fields.done("'functionName', 'lane', 'type', 'newVersion' and 'entryFileName'")?;
    caller.may(Verb::Push, &lane, &name)?;

    let place = services
        .push_place()
        .ok_or_else(|| Problem::new(ErrorCode::AtCapacity, "the server takes as many pushes as it may now"))?;
    let cancel = CancellationToken::new();
    let Package { path, size, sha256 } = receive(&request, body, &services).await?;
    let push = Push {
        name,
        lane,
        kind,
        new_version,
        entry,
        pushed_by: caller.name().map(ToString::to_string),
        package: path,
        size,
        sha256,
        cancel: cancel.clone(),
    };
    let _hung_up = cancel.drop_guard();
    let publisher = services.publisher().clone();
    let work = async move {
        // The place is taken as long as the work goes on, whether or not the client still waits.
        let _place = place;
        let published = publisher.publish(push).await;
        if let Ok(function) = &published {
            let entry = caller.entry("push", function.location.to_string());
            caller.record(entry.with(format!("sha256 {}", function.sha256)));
        }
        published
    };
    let function = services.spawn(work).await??;
    Ok(HttpResponse::Created().json(PushResponse::of(&function, &services.config().grants)))
}

/// A package as it arrived; the file goes when this is dropped.
struct Package {
    path: TempPath,
    size: u64,
    sha256: Digest,
}

async fn receive(request: &HttpRequest, body: web::Payload, services: &Services) -> Result<Package, Problem> {
    body::refuse_encoding(request)?;
    let limit = services.limits().package_bytes;
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit.saturating_add(BESIDE_PACKAGE)) {
        return Err(too_large(limit));
    }
    let mut pace = Pace::new(services.config().server.read_seconds);
    let mut parts = Multipart::new(request.headers(), body);
    let mut package = None;
    while let Some(part) = pace.next(parts.next()).await? {
        let mut part = part.map_err(|error| not_multipart(&error))?;
        if part.name() != Some(PART) {
            let name: String = part.name().unwrap_or_default().chars().take(80).collect();
            return Err(Problem::invalid(format!(
                "the body has a part {name:?}; it must have one part, '{PART}', the zip"
            )));
        }
        if package.is_some() {
            return Err(Problem::invalid(format!("the body has more than one part '{PART}'")));
        }
        let mut writing = Writing::new(services.incoming())?;
        while let Some(bytes) = pace.next(part.next()).await? {
            let bytes = bytes.map_err(|error| not_multipart(&error))?;
            pace.received(bytes.len());
            if writing.size + bytes.len() as u64 > limit {
                return Err(too_large(limit));
            }
            writing = web::block(move || writing.write(&bytes)).await.map_err(|error| failed(&error))??;
        }
        package = Some(writing.finish());
    }
    package.ok_or_else(|| Problem::invalid(format!("the body has no part '{PART}', which must be the zip")))
}

fn too_large(limit: u64) -> Problem {
    metrics::LARGE_BODIES.count();
    Problem::new(ErrorCode::PackageTooLarge, format!("the package may have {limit} bytes, and has more"))
}

fn not_multipart(error: &dyn std::fmt::Display) -> Problem {
    Problem::invalid(format!("the body must be multipart/form-data with a part '{PART}', the zip: {error}"))
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a package could not be written to the local folder");
    Problem::new(ErrorCode::Internal, "the server could not keep the package; its log says why")
}

/// A package on its way into a temporary file, its digest taken as it passes.
struct Writing {
    file: NamedTempFile,
    size: u64,
    digest: digest::Context,
}

impl Writing {
    fn new(folder: &Path) -> Result<Self, Problem> {
        let file = NamedTempFile::with_prefix_in("push-", folder).map_err(|error| failed(&error))?;
        Ok(Self { file, size: 0, digest: digest::Context::new(&digest::SHA256) })
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, Problem> {
        self.file.write_all(bytes).map_err(|error| failed(&error))?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(self)
    }

    fn finish(self) -> Package {
        let sha256 = Digest::from_ring(&self.digest.finish());
        Package { path: self.file.into_temp_path(), size: self.size, sha256 }
    }
}
