//! Invocations as the API shows them.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    database::InvocationRow,
    function::{FunctionType, OutputLine, ResultText, Status},
};

/// A result: the JSON value that the text is, or else the text as a string.
#[derive(Debug, Clone, Copy)]
pub struct ResultValue<'a>(pub &'a str);

impl Serialize for ResultValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0) {
            Ok(json) => json.serialize(serializer),
            Err(_) => serializer.serialize_str(self.0),
        }
    }
}

/// A JSON object with the result as its last member, in three parts: the one in the middle is shared by all who are
/// told of it.
#[must_use]
pub fn with_result(object: &str, result: Option<&ResultText>) -> (String, Bytes, &'static str) {
    let members = object.strip_suffix('}').unwrap_or(object);
    (format!("{members},\"result\":"), result.map_or(Bytes::from_static(b"null"), ResultText::json), "}")
}

/// Milliseconds with the microseconds behind the point.
#[must_use]
pub fn millis(micros: u64) -> f64 {
    // Exact for any time that a call can take: below 2^53 microseconds, which are 285 years.
    micros as f64 / 1000.0
}

/// Why a call has no result.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorView<'a> {
    /// The kind of error, as in problem documents.
    code: &'a str,
    /// What happened.
    detail: &'a str,
}

/// A call, running or ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationView<'a> {
    /// Its id.
    invocation_id: Uuid,
    /// Who called, where they said.
    caller_id: Option<&'a str>,
    /// The token that the call was made with; none where the server asked for none.
    token: Option<&'a str>,
    /// What was run.
    function_name: &'a str,
    /// From which lane.
    lane: &'a str,
    /// The exact version; none while it is not known.
    #[schema(value_type = Option<String>)]
    version: Option<String>,
    /// The function's type; none while it is not known.
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    /// Where it stands.
    status: Status,
    /// What it returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<ResultValue<'a>>,
    /// Why it has no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView<'a>>,
    /// The last of what it printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<OutputLine>>)]
    output: Option<&'a [Arc<OutputLine>]>,
    /// Whether it printed more than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_truncated: Option<bool>,
    /// How long it was at work, in milliseconds.
    elapsed_ms: Option<f64>,
    /// The most memory that it took at one time, in bytes: of native programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_peak_bytes: Option<u64>,
    /// The processor time that it took, in milliseconds: of native programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<f64>,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    /// When it began to run.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    ended_at: Option<DateTime<Utc>>,
    /// Which server ran it.
    node: &'a str,
}

impl<'a> InvocationView<'a> {
    /// All of it.
    #[must_use]
    pub fn whole(row: &'a InvocationRow) -> Self {
        Self {
            result: row.result.as_deref().map(ResultValue),
            output: Some(&row.output),
            output_truncated: Some(row.output_skipped > 0),
            ..Self::line(row)
        }
    }

    /// Without result and output, for lists.
    #[must_use]
    pub fn line(row: &'a InvocationRow) -> Self {
        Self {
            invocation_id: row.id.0,
            caller_id: row.caller_id.as_ref().map(crate::function::CallerId::as_str),
            token: row.token.as_ref().map(crate::function::TokenName::as_str),
            function_name: row.name.as_str(),
            lane: row.lane.as_str(),
            version: row.version.map(|version| version.to_string()),
            kind: row.kind,
            status: row.status,
            result: None,
            error: row
                .error_code
                .as_deref()
                .map(|code| ErrorView { code, detail: row.detail.as_deref().unwrap_or("") }),
            output: None,
            output_truncated: None,
            elapsed_ms: row.elapsed_us.map(millis),
            memory_peak_bytes: row.usage.memory_peak_bytes,
            cpu_ms: row.usage.cpu_us.map(millis),
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            node: &row.node,
        }
    }
}
