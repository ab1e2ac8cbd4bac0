//! `/api/v1/sql`: a question of anybody's who may look, answered by a worker.

use serde_json::Value;
use tidewatch_serve::{Answer, ApiRequest};

use super::Api;
use crate::sql_worker::{Form, Frame, Question};
use crate::sql_workers::Refusal;

/// Bytes of an answer. It is handed over whole, so that an error is told by its status and not by an answer that breaks off.
const ANSWER_BYTES: usize = 64 << 20;

/// Bytes of one statement.
const SQL_BYTES: usize = 64 << 10;

impl Api {
    /// Answers no questions any more.
    pub fn stop_sql(&self) {
        self.workers.stop();
    }

    /// How many workers ended while they answered.
    pub fn sql_workers_died(&self) -> u64 {
        self.workers.died()
    }

    /// Answers `query`, in the form of `format` or of the Accept header.
    pub(super) fn sql(&self, request: &ApiRequest) -> Answer {
        let Asked { question, kind, fresh } = match question(request) {
            Ok(asked) => asked,
            Err(problem) => return Answer::refused(400, &problem),
        };
        if fresh {
            self.fresh.wait();
        }
        let mut body = Vec::new();
        let asked = self.workers.ask(&question, |frame| {
            if let Some(Frame::Bytes(bytes)) = frame {
                body.extend(bytes);
            }
            if body.len() > ANSWER_BYTES {
                return Err(format!("the answer is larger than {} MiB: expected a LIMIT", ANSWER_BYTES >> 20));
            }
            Ok(())
        });
        match asked {
            Ok(()) => Answer::of(200, kind, body),
            Err(refusal @ (Refusal::Wrong(..) | Refusal::Unwanted(_))) => Answer::refused(422, &refusal.to_string()),
            Err(refusal @ Refusal::Failed(..)) => Answer::refused(500, &refusal.to_string()),
            Err(refusal @ (Refusal::Busy(_) | Refusal::Late(_) | Refusal::Stopped)) => {
                Answer::refused(503, &refusal.to_string())
            }
        }
    }
}

/// What a request asks.
struct Asked {
    question: Question,
    /// The content type of its answer.
    kind: &'static str,
    /// Whether rows that are not committed yet are committed first.
    fresh: bool,
}

fn question(request: &ApiRequest) -> Result<Asked, String> {
    let body: Value = match request.body.as_slice() {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?,
    };
    let mut given: Vec<(&str, &Value)> = Vec::new();
    if let Value::Object(object) = &body {
        given.extend(object.iter().map(|(name, value)| (name.as_str(), value)));
    }
    let texts: Vec<(&str, Value)> =
        request.query.iter().map(|(name, value)| (name.as_str(), Value::from(value.as_str()))).collect();
    given.extend(texts.iter().map(|(name, value)| (*name, value)));
    let (mut sql, mut parameters, mut form, mut fresh) = (None, vec![], None, true);
    for (name, value) in given {
        match (name, value) {
            ("query", Value::String(text)) => sql = Some(text.clone()),
            ("format", Value::String(text)) => form = Some(form_of(text)?),
            ("parameters", Value::Array(values)) => parameters = values.iter().map(text).collect(),
            ("fresh", Value::Bool(value)) => fresh = *value,
            ("fresh", Value::String(text)) => {
                fresh = text.parse().map_err(|_| format!("fresh: '{text}' is not one of true, false"))?;
            }
            ("query" | "format", _) => return Err(format!("{name}: expected a text")),
            ("parameters", _) => return Err(format!("{name}: expected a list")),
            ("fresh", _) => return Err(format!("{name}: expected true or false")),
            (other, _) => {
                return Err(format!("unknown parameter '{other}': expected query, format, parameters or fresh"));
            }
        }
    }
    let sql = sql.ok_or("expected query, a statement of SQL")?;
    if sql.len() > SQL_BYTES {
        return Err(format!("expected at most {} KiB of SQL, found {}", SQL_BYTES >> 10, sql.len() >> 10));
    }
    let form = match form {
        Some(form) => form,
        None => accepted(&request.accept),
    };
    let kind = match form {
        Form::Csv => "text/csv; charset=utf-8",
        Form::Arrow => "application/vnd.apache.arrow.stream",
        Form::Json | Form::Description | Form::Statements => "application/x-ndjson",
    };
    Ok(Asked { question: Question { sql, parameters, form }, kind, fresh })
}

/// A value as the text that it is read from.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn form_of(text: &str) -> Result<Form, String> {
    match text {
        "json" => Ok(Form::Json),
        "csv" => Ok(Form::Csv),
        "arrow" => Ok(Form::Arrow),
        other => Err(format!("format: '{other}' is not one of json, csv, arrow")),
    }
}

fn accepted(accept: &str) -> Form {
    match accept {
        accept if accept.contains("text/csv") => Form::Csv,
        accept if accept.contains("application/vnd.apache.arrow.stream") => Form::Arrow,
        _ => Form::Json,
    }
}
