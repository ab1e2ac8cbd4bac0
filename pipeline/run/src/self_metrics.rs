//! What `/metrics` and `/healthz` show.

use std::sync::{Arc, Mutex, PoisonError};

use tidewatch_flow::alerting::GroupView;
use tidewatch_model::{Alert, AlertState, Rule};
use tidewatch_serve::{Answer, ApiRequest, Metric, MetricKind, Status};

use crate::api::{Api, RuleHealth};
use crate::station::Stats;

/// The newest figures, shared with the HTTP thread.
pub struct Shown {
    figures: Mutex<Figures>,
    api: Api,
}

#[derive(Debug, Clone, Default)]
struct Figures {
    stats: Stats,
    pending: usize,
    firing: usize,
    corrupt_frames: u64,
    feeds: (u64, u64),
    heartbeats: (u64, u64),
    sql_servers_ended: u64,
}

impl Shown {
    /// Nothing yet.
    pub fn new(api: Api) -> Shown {
        Shown { figures: Mutex::default(), api }
    }

    /// Questions from outside are not answered any more.
    pub fn stop_sql(&self) {
        self.api.stop_sql();
    }

    /// Renews what the API shows.
    pub fn set_alerts(&self, alerts: &[Alert], groups: Vec<GroupView>, rules: &Arc<Vec<Rule>>, health: RuleHealth) {
        self.api.set(alerts.to_vec(), groups, rules.clone(), health);
    }

    /// Renews how Alertmanagers were fed (alerts taken, requests failed), and the heartbeats (delivered, not).
    pub fn set_feeds(&self, feeds: (u64, u64), heartbeats: (u64, u64)) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        (figures.feeds, figures.heartbeats) = (feeds, heartbeats);
    }

    /// Counts that the server of PostgreSQL's protocol ended, and is started again.
    pub fn sql_server_ended(&self) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).sql_servers_ended += 1;
    }

    /// Renews the figures.
    pub fn set(&self, stats: &Stats, alerts: &[Alert], corrupt_frames: u64) {
        let count = |state| alerts.iter().filter(|alert| alert.state == state).count();
        let before = self.figures();
        let figures = Figures {
            stats: stats.clone(),
            pending: count(AlertState::Pending),
            firing: count(AlertState::Firing),
            corrupt_frames,
            feeds: before.feeds,
            heartbeats: before.heartbeats,
            sql_servers_ended: before.sql_servers_ended,
        };
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    fn figures(&self) -> Figures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Status for Shown {
    fn api(&self, request: &ApiRequest) -> Answer {
        self.api.answer(request)
    }

    fn health(&self) -> Result<(), String> {
        self.figures().stats.trouble.map_or(Ok(()), Err)
    }

    fn metrics(&self) -> Vec<Metric> {
        use MetricKind::{Counter, Gauge};
        let Figures { stats, pending, firing, corrupt_frames, feeds, heartbeats, sql_servers_ended } = self.figures();
        let by = |label: &'static str, values: &std::collections::BTreeMap<String, u64>| {
            values.iter().map(|(name, value)| (vec![(label, name.clone())], *value as f64)).collect::<Vec<_>>()
        };
        let watermarks =
            stats.watermarks.iter().map(|(table, ts)| (vec![("table", table.clone())], ts.0 as f64 / 1e6)).collect();
        let notices = stats
            .notices
            .iter()
            .map(|(outcome, count)| (vec![("outcome", outcome.to_string())], *count as f64))
            .collect();
        let cleaned = stats.cleaned_values.iter().map(|((table, column, reason), count)| {
            let labels = vec![("table", table.clone()), ("column", column.to_string()), ("reason", reason.to_string())];
            (labels, *count as f64)
        });
        let refused = stats.refused_rows.iter().map(|((table, reason), count)| {
            (vec![("table", table.clone()), ("reason", reason.to_string())], *count as f64)
        });
        let (cleaned, refused) = (cleaned.collect(), refused.collect());
        let alerts = vec![
            (vec![("state", "pending".to_string())], pending as f64),
            (vec![("state", "firing".to_string())], firing as f64),
        ];
        let metric = |name, help, kind, samples| Metric { name, help, kind, samples };
        vec![
            metric("tidewatch_rows_total", "rows admitted", Counter, by("table", &stats.rows)),
            metric(
                "tidewatch_dead_letters_total",
                "records that can't be read, put on the topic's dead-letter topic",
                Counter,
                by("topic", &stats.dead_letters),
            ),
            metric(
                "tidewatch_odd_time_rows_total",
                "rows too far ahead of or behind the clock, dead letters",
                Counter,
                by("table", &stats.odd_time_rows),
            ),
            metric(
                "tidewatch_cleaned_values_total",
                "values that cleaning changed, and why: nan and infinite are NULL now, range and jump as clean.rules says, unit was converted",
                Counter,
                cleaned,
            ),
            metric(
                "tidewatch_refused_rows_total",
                "rows that were not taken, and why; all but copies of rows that were (duplicate) are dead letters",
                Counter,
                refused,
            ),
            metric(
                "tidewatch_late_rows_total",
                "rows that came after the windows that wanted them",
                Counter,
                by("table", &stats.late_rows),
            ),
            metric(
                "tidewatch_engine_overflow_rows_total",
                "rows that are not watched, because there are too many series or too many rows",
                Counter,
                by("table", &stats.overflow_rows),
            ),
            Metric::single(
                "tidewatch_engine_overflow_groups_total",
                "rows of groups that no rule watches, because there are too many",
                Counter,
                stats.overflow_groups as f64,
            ),
            metric(
                "tidewatch_rule_repeated_rows_total",
                "rows of an alert's identity of which a worse row of the same time speaks",
                Counter,
                by("rule", &stats.repeated_rows),
            ),
            metric(
                "tidewatch_engine_bytes",
                "bytes that rows and windows hold, looked at every ten seconds",
                Gauge,
                by("table", &stats.engine_bytes),
            ),
            Metric::single(
                "tidewatch_sql_workers_died_total",
                "processes that ended over a question",
                Counter,
                self.api.sql_workers_died() as f64,
            ),
            metric(
                "tidewatch_http_rows_total",
                "rows that were posted and taken",
                Counter,
                by("table", &self.api.posted().0),
            ),
            Metric::single(
                "tidewatch_http_rejected_rows_total",
                "lines and values that came over HTTP or StatsD and were not taken",
                Counter,
                self.api.posted().1 as f64,
            ),
            Metric::single(
                "tidewatch_http_duplicates_total",
                "values that were sent again, and not written again",
                Counter,
                self.api.duplicates() as f64,
            ),
            Metric::single(
                "tidewatch_sql_servers_ended_total",
                "ends of the process that serves PostgreSQL's protocol; it is started again",
                Counter,
                sql_servers_ended as f64,
            ),
            Metric::single(
                "tidewatch_duplicate_records_total",
                "records that had been read before",
                Counter,
                stats.duplicates as f64,
            ),
            Metric::single(
                "tidewatch_missing_offsets_total",
                "offsets that the log could not give",
                Counter,
                stats.missing as f64,
            ),
            Metric::single(
                "tidewatch_corrupt_frames",
                "damaged frames in the log's segments",
                Gauge,
                corrupt_frames as f64,
            ),
            metric(
                "tidewatch_watermark_seconds",
                "event time up to which rows are expected to be complete",
                Gauge,
                watermarks,
            ),
            metric(
                "tidewatch_lag_records",
                "records in the log that were not read yet",
                Gauge,
                by("table", &stats.lag),
            ),
            Metric::single("tidewatch_evaluations_total", "rule evaluations", Counter, stats.evaluations as f64),
            metric(
                "tidewatch_rule_failures_total",
                "evaluations that failed",
                Counter,
                by("rule", &stats.rule_failures),
            ),
            metric("tidewatch_alerts", "alerts by state", Gauge, alerts),
            Metric::single("tidewatch_transitions_total", "changes of alerts", Counter, stats.transitions as f64),
            metric("tidewatch_notices_total", "attempts to tell people, by outcome", Counter, notices),
            Metric::single(
                "tidewatch_notices_waiting",
                "notices not delivered yet",
                Gauge,
                stats.notices_waiting as f64,
            ),
            Metric {
                name: "tidewatch_heartbeats_total",
                help: "heartbeats, by outcome",
                kind: Counter,
                samples: vec![
                    (vec![("outcome", "delivered".to_string())], heartbeats.0 as f64),
                    (vec![("outcome", "failed".to_string())], heartbeats.1 as f64),
                ],
            },
            Metric::single(
                "tidewatch_alertmanager_alerts_total",
                "alerts that Alertmanagers took",
                Counter,
                feeds.0 as f64,
            ),
            Metric::single(
                "tidewatch_alertmanager_failures_total",
                "requests to Alertmanagers that failed",
                Counter,
                feeds.1 as f64,
            ),
            Metric::single(
                "tidewatch_lake_committed_rows_total",
                "rows committed to the lake",
                Counter,
                stats.lake_rows as f64,
            ),
            Metric::single(
                "tidewatch_lake_failures_total",
                "commits to the lake that failed",
                Counter,
                stats.lake_failures as f64,
            ),
            Metric::single(
                "tidewatch_lake_hot_bytes_total",
                "bytes of hot files written",
                Counter,
                stats.lake_bytes as f64,
            ),
            Metric::single(
                "tidewatch_lake_waiting_rows",
                "rows that wait for the next commit",
                Gauge,
                stats.lake_waiting_rows as f64,
            ),
            Metric::single(
                "tidewatch_lake_settled_rows_total",
                "rows sorted into settled files",
                Counter,
                stats.settled_rows as f64,
            ),
            Metric::single(
                "tidewatch_lake_public_rows_total",
                "rows that became public: a plain glob finds them",
                Counter,
                stats.public_rows as f64,
            ),
            Metric::single(
                "tidewatch_lake_deleted_files_total",
                "files of the lake that were needed no more",
                Counter,
                stats.lake_deleted_files as f64,
            ),
            Metric::single(
                "tidewatch_healthy",
                "1 when nothing keeps the station from working",
                Gauge,
                f64::from(u8::from(stats.trouble.is_none())),
            ),
        ]
    }
}
