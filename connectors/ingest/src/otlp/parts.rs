//! What a request is made of, as its JSON has it. Only what is kept.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// A request with metrics.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsRequest {
    pub resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceMetrics {
    pub resource: Resource,
    pub scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeMetrics {
    pub scope: Scope,
    pub metrics: Vec<Metric>,
}

/// What sends.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    pub attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metric {
    pub name: String,
    pub unit: String,
    pub gauge: Option<Numbers>,
    pub sum: Option<Numbers>,
    pub histogram: Option<Histograms>,
    pub exponential_histogram: Option<ExponentialHistograms>,
    pub summary: Option<Summaries>,
}

/// A gauge or a sum.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Numbers {
    pub data_points: Vec<NumberPoint>,
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i64,
    pub is_monotonic: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NumberPoint {
    pub attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[serde(deserialize_with = "optional_double")]
    pub as_double: Option<f64>,
    #[serde(deserialize_with = "optional_signed")]
    pub as_int: Option<i64>,
    pub flags: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Histograms {
    pub data_points: Vec<HistogramPoint>,
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HistogramPoint {
    pub attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[serde(deserialize_with = "number")]
    pub count: u64,
    #[serde(deserialize_with = "optional_double")]
    pub sum: Option<f64>,
    #[serde(deserialize_with = "numbers")]
    pub bucket_counts: Vec<u64>,
    #[serde(deserialize_with = "doubles")]
    pub explicit_bounds: Vec<f64>,
    pub flags: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExponentialHistograms {
    pub data_points: Vec<ExponentialPoint>,
    #[serde(deserialize_with = "temporality")]
    pub aggregation_temporality: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExponentialPoint {
    pub attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[serde(deserialize_with = "number")]
    pub count: u64,
    #[serde(deserialize_with = "optional_double")]
    pub sum: Option<f64>,
    pub scale: i32,
    #[serde(deserialize_with = "number")]
    pub zero_count: u64,
    pub positive: Buckets,
    pub negative: Buckets,
    pub flags: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Buckets {
    pub offset: i32,
    #[serde(deserialize_with = "numbers")]
    pub bucket_counts: Vec<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summaries {
    pub data_points: Vec<SummaryPoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SummaryPoint {
    pub attributes: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[serde(deserialize_with = "number")]
    pub count: u64,
    #[serde(deserialize_with = "double")]
    pub sum: f64,
    pub quantile_values: Vec<Quantile>,
    pub flags: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quantile {
    #[serde(deserialize_with = "double")]
    pub quantile: f64,
    #[serde(deserialize_with = "double")]
    pub value: f64,
}

/// A request with logs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogsRequest {
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceLogs {
    pub resource: Resource,
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeLogs {
    pub scope: Scope,
    pub log_records: Vec<LogRecord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRecord {
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[serde(deserialize_with = "number")]
    pub observed_time_unix_nano: u64,
    pub severity_number: i64,
    pub severity_text: String,
    pub body: AnyValue,
    pub attributes: Vec<KeyValue>,
    pub trace_id: String,
    pub span_id: String,
    pub event_name: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyValue {
    pub key: String,
    pub value: AnyValue,
}

/// A value of any kind; of its fields one is set, or none.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnyValue {
    pub string_value: Option<String>,
    pub bool_value: Option<bool>,
    #[serde(deserialize_with = "optional_signed")]
    pub int_value: Option<i64>,
    #[serde(deserialize_with = "optional_double")]
    pub double_value: Option<f64>,
    pub array_value: Option<Values>,
    pub kvlist_value: Option<Pairs>,
    /// Base 64.
    pub bytes_value: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Values {
    pub values: Vec<AnyValue>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Pairs {
    pub values: Vec<KeyValue>,
}

impl AnyValue {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value;
        if let Some(text) = self.string_value.as_ref().or(self.bytes_value.as_ref()) {
            return Value::from(text.as_str());
        }
        if let Some(values) = &self.array_value {
            return values.values.iter().map(AnyValue::json).collect();
        }
        if let Some(pairs) = &self.kvlist_value {
            return pairs.values.iter().map(|pair| (pair.key.clone(), pair.value.json())).collect();
        }
        let number = self.double_value.map(Value::from).or(self.int_value.map(Value::from));
        number.or(self.bool_value.map(Value::from)).unwrap_or(Value::Null)
    }

    /// As text: a text as it is, everything else as JSON, nothing as nothing.
    pub fn text(&self) -> String {
        match self.json() {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// Numbers that protobuf's JSON writes as numbers or as texts.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Loose {
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Text(String),
}

impl Loose {
    fn number<N: std::str::FromStr>(self) -> Result<N, String> {
        let text = match self {
            Loose::Unsigned(number) => number.to_string(),
            Loose::Signed(number) => number.to_string(),
            Loose::Double(number) => number.to_string(),
            Loose::Text(text) => text,
        };
        text.parse().map_err(|_| format!("'{text}' is not a number of this kind"))
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Loose::deserialize(deserializer)?.number().map_err(Error::custom)
}

fn double<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Loose::deserialize(deserializer)?.number().map_err(Error::custom)
}

fn optional_double<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::<Loose>::deserialize(deserializer)?.map(Loose::number).transpose().map_err(Error::custom)
}

fn optional_signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<Loose>::deserialize(deserializer)?.map(Loose::number).transpose().map_err(Error::custom)
}

fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let found = Vec::<Loose>::deserialize(deserializer)?;
    found.into_iter().map(Loose::number).collect::<Result<_, _>>().map_err(Error::custom)
}

fn doubles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let found = Vec::<Loose>::deserialize(deserializer)?;
    found.into_iter().map(Loose::number).collect::<Result<_, _>>().map_err(Error::custom)
}

/// An enum, which may be its number or its name.
fn temporality<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Loose::deserialize(deserializer)? {
        Loose::Text(name) if name == "AGGREGATION_TEMPORALITY_DELTA" => Ok(DELTA),
        Loose::Text(name) if name == "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(CUMULATIVE),
        other => other.number().map_err(Error::custom),
    }
}

/// What was counted since the last time.
pub const DELTA: i64 = 1;
/// What was counted since the start.
pub const CUMULATIVE: i64 = 2;
