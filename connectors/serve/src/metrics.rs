//! Self-metrics in Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises, but at a restart.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One metric with its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name; counters end in `_total`, the unit comes before.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// Labels and value of each series.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Metric {
    /// A metric with one series without labels.
    pub fn single(name: &'static str, help: &'static str, kind: MetricKind, value: f64) -> Self {
        Metric { name, help, kind, samples: vec![(vec![], value)] }
    }
}

/// The metrics as text.
pub fn exposition(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name);
        for (labels, value) in &metric.samples {
            let pairs: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(text, "{}{labels} {value}", metric.name);
        }
    }
    text
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let metric = Metric {
            name: "tidewatch_rows_total",
            help: "rows read",
            kind: MetricKind::Counter,
            samples: vec![(vec![("table", "g\"pu\n".to_string())], 5.0), (vec![], 0.5)],
        };
        assert_eq!(
            exposition(&[metric]),
            "# HELP tidewatch_rows_total rows read\n# TYPE tidewatch_rows_total counter\ntidewatch_rows_total{table=\"g\\\"pu\\n\"} 5\ntidewatch_rows_total 0.5\n"
        );
    }
}
