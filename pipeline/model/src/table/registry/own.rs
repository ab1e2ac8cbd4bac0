//! Tables about Tidewatch itself.

use super::{counter, flag, float, id, instant, integer, map, text};
use crate::table::{Table, TableKind};
use crate::time::Span;

/// One collector of one agent at one moment.
pub const COLLECTOR: Table = Table {
    name: "collector",
    meaning: "one collector of one agent at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("collector", "the agent"),
        flag("ok", "the agent: the last run had rows and no error"),
        float("duration_seconds", "seconds", "the agent: length of the last run"),
        float("stuck_seconds", "seconds", "the agent: age of a run that has not returned").null("nothing is stuck"),
        counter("rows_total", "rows since start", "the agent"),
        counter("errors_total", "values that could not be read since start", "the agent"),
        counter("dropped_rows_total", "rows since start", "the agent: rows that the log did not take"),
        integer("spool_bytes", "bytes", "the agent").null("no spool"),
        text("message", "the agent: the last error").null("none"),
    ],
};

/// One change of an alert.
pub const ALERT_EVENT: Table = Table {
    name: "alert_event",
    meaning: "one change of an alert",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        text("event_id", "a hash of rule, version, fingerprint, state, reason and ts"),
        id("rule", "CREATE ALERT"),
        text("rule_version", "a hash of the SELECT"),
        id("fingerprint", "FNV-1a 64 of the labels, as Alertmanager's"),
        map("labels", "alertname, key, static labels"),
        text("severity", "the rule"),
        text("from_state", "inactive, pending, firing or resolved"),
        text("to_state", "inactive, pending, firing or resolved"),
        text("reason", "the lifecycle"),
        float("value", "the rule's", "the first number of the SELECT besides the key").null("none"),
        map("values", "the SELECT's columns besides the key"),
        instant("window_start", "the window that decided"),
        instant("window_end", "the window that decided"),
        instant("processed_at", "the engine's clock"),
    ],
};

/// One thing that somebody did to a silence.
pub const SILENCE_EVENT: Table = Table {
    name: "silence_event",
    meaning: "one silence that was made, changed or ended",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        id("silence", "its id, a UUID"),
        text("action", "created, changed or expired"),
        text("by", "who did it: the token's name, else who they say they are"),
        text("matchers", "what it mutes"),
        instant("starts_at", "the silence"),
        instant("ends_at", "the silence"),
        text("created_by", "who made it"),
        text("comment", "why"),
    ],
};

/// One notice, when it was delivered or given up.
pub const NOTICE_EVENT: Table = Table {
    name: "notice_event",
    meaning: "one notice, when it was delivered or given up",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        text("notice_id", "a hash of event_id and receiver; the idempotency key"),
        id("receiver", "the configuration"),
        id("group_key", "the route and the labels grouped by"),
        text("status", "firing or resolved"),
        text("reason", "why it was sent"),
        text("outcome", "delivered or gave_up"),
        integer("attempts", "attempts", "the notifier"),
        integer("alerts", "alerts told about", "the notifier"),
        text("error", "the last error").null("none"),
        instant("processed_at", "the engine's clock"),
        text("fingerprints", "of the alerts told about, with a space between; the first 20,000").null("not known then"),
    ],
};
