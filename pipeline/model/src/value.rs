//! Values that leave the SQL engine: the key of a group (its labels) and the other columns of a row.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::alert::hex;
use crate::limits::{LABEL_BYTES, MAP_BYTES};
use crate::time::Timestamp;

/// The identity of a group within a rule: label name to label value, sorted by name. A NULL is an absent label.
pub type Key = BTreeMap<String, String>;

/// The columns of a row that are not its identity, in SELECT order.
pub type Values = Vec<(String, Value)>;

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A Bool.
    Bool(bool),
    /// An Int64 (narrower integers are widened).
    Int(i64),
    /// A Float64; not finite ones print as `NaN`, `+Inf`, `-Inf`.
    Float(f64),
    /// A Utf8, and whatever has no better form.
    Text(String),
}

impl Value {
    /// As a number, when it is one: the `value` column of `alert_event`.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Null | Value::Text(_) => None,
        }
    }
}

impl From<Timestamp> for Value {
    fn from(ts: Timestamp) -> Self {
        Value::Text(ts.to_string())
    }
}

impl fmt::Display for Value {
    /// As people and labels see it. Floats print the shortest digits that read back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => Ok(()),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) if value.is_nan() => f.write_str("NaN"),
            Value::Float(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" }),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
        }
    }
}

/// The number that stands for a row, and that `alert_event.value` holds: its column `value`, else the first that is a number.
pub fn headline(values: &Values) -> Option<f64> {
    let named = values.iter().find(|(name, _)| name == "value").and_then(|(_, value)| value.as_f64());
    named.or_else(|| values.iter().find_map(|(_, value)| value.as_f64()))
}

/// A text of at most so many bytes. What is cut off is replaced by an ellipsis; control characters, which JSON and
/// terminals blow up, become U+FFFD.
///
/// ```
/// use tidewatch_model::value::cut;
/// assert_eq!(cut("short".to_string(), 8), "short");
/// assert_eq!(cut("a longer text".to_string(), 8), "a lon…");
/// ```
pub fn cut(text: String, bytes: usize) -> String {
    let is_odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    let text = if text.contains(is_odd) { text.replace(is_odd, "\u{FFFD}") } else { text };
    if text.len() <= bytes {
        return text;
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// A map as the value of an identity: JSON, its keys sorted, or what [`cut_label`] leaves of one that is too long to be told.
///
/// ```
/// use tidewatch_model::value::{entries_of, map_text};
/// let text = map_text([("job", "a"), ("host", "n1")]);
/// assert_eq!(text, r#"{"host":"n1","job":"a"}"#);
/// assert_eq!(entries_of(&text).unwrap()["job"], "a");
/// ```
pub fn map_text<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let entries: BTreeMap<&str, &str> = entries.into_iter().collect();
    let text = serde_json::to_string(&entries).unwrap_or_default();
    if text.len() > MAP_BYTES { cut_label(text) } else { text }
}

/// The entries of such a text; `None` of one that was cut.
pub fn entries_of(text: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(text).ok()
}

/// The value of a label: [`cut`], with a hash of the whole behind it when something was cut, since labels are identity.
pub fn cut_label(text: String) -> String {
    if text.len() <= LABEL_BYTES {
        return cut(text, LABEL_BYTES);
    }
    let hash = hex(&Sha256::digest(text.as_bytes())[..8]);
    format!("{}{hash}", cut(text, LABEL_BYTES - hash.len()))
}
