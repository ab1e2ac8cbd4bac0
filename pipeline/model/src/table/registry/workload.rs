//! Tables about what runs on the machines.

use super::{column, counter, float, id, id_number, integer, map, ratio, text};
use crate::table::{ColumnType, Table, TableKind};
use crate::time::Span;

/// One line of a log.
pub const LOG: Table = Table {
    name: "log",
    meaning: "one line of a log",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        id("host", "the collector's configuration, else /proc/sys/kernel/hostname"),
        id("source", "the file, or the journal unit"),
        text("level", "the line, parsed").null("none found"),
        text("message", "the line"),
        map("fields", "the line, parsed").null("none found"),
    ],
};

/// One step of one rank of a training job.
pub const TRAIN_STEP: Table = Table {
    name: "train_step",
    meaning: "one step of one rank of a training job",
    kind: TableKind::Sample,
    interval: Span::seconds(0),
    columns: &[
        id("job", "the trainer"),
        id_number("rank", "the trainer"),
        text("host", "the trainer, or the agent"),
        integer("step", "steps", "the trainer"),
        float("epoch", "epochs", "the trainer").null("not said"),
        column("loss", ColumnType::Float64WithNan, "the trainer's; NaN is data", "the trainer").null("not said"),
        column("gradient_norm", ColumnType::Float64WithNan, "the trainer's; NaN is data", "the trainer")
            .null("not said"),
        float("learning_rate", "the trainer's", "the trainer").null("not said"),
        float("step_seconds", "seconds", "the trainer").null("not said"),
        float("data_seconds", "seconds waiting for data", "the trainer").null("not said"),
        integer("tokens", "tokens in the step", "the trainer").null("not said"),
        integer("samples", "samples in the step", "the trainer").null("not said"),
    ],
};

/// Something that happened to a training job.
pub const JOB_EVENT: Table = Table {
    name: "job_event",
    meaning: "something that happened to a training job",
    kind: TableKind::Event,
    interval: Span::seconds(0),
    columns: &[
        id("job", "the trainer"),
        id_number("rank", "the trainer"),
        text("host", "the trainer, or the agent"),
        id("kind", "start, checkpoint, checkpoint_failed, evaluation, end or failed"),
        text("message", "the trainer").null("none"),
    ],
};

/// One replica of an inference service at one moment.
pub const SERVE: Table = Table {
    name: "serve",
    meaning: "one replica of an inference service at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("service", "the scrape target"),
        id("replica", "the scrape target"),
        text("host", "the scrape target"),
        text("model", "the server's metrics").null("not said"),
        integer("requests_running", "requests", "the server's metrics").null("not said"),
        integer("requests_waiting", "requests", "the server's metrics").null("not said"),
        ratio("kv_cache_ratio", "the server's metrics").null("not said"),
        counter("preemptions_total", "preemptions", "the server's metrics").null("not said"),
        counter("requests_total", "requests", "the server's metrics").null("not said"),
        counter("errors_total", "requests", "the server's metrics").null("not said"),
        counter("prompt_tokens_total", "tokens", "the server's metrics").null("not said"),
        counter("generated_tokens_total", "tokens", "the server's metrics").null("not said"),
    ],
};

/// One bucket of a latency histogram at one moment.
pub const SERVE_HISTOGRAM: Table = Table {
    name: "serve_histogram",
    meaning: "one bucket of a latency histogram at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("service", "the scrape target"),
        id("replica", "the scrape target"),
        id("metric", "the server's metrics"),
        column("le", ColumnType::Float64, "upper bound, in the metric's unit", "the server's metrics").identity(),
        counter("count_total", "observations at or below", "the server's metrics"),
    ],
};

/// One stage of a data job at one moment.
pub const DATA_JOB: Table = Table {
    name: "data_job",
    meaning: "one stage of a data job at one moment",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("job", "the engine's metrics"),
        id("stage", "the engine's metrics"),
        text("host", "the engine's metrics").null("not said"),
        counter("records_in_total", "records", "the engine's metrics").null("not said"),
        counter("records_out_total", "records", "the engine's metrics").null("not said"),
        integer("lag_records", "records", "the engine's metrics").null("not said"),
        float("watermark_lag_seconds", "seconds", "the engine's metrics").null("not said"),
        counter("tasks_total", "tasks", "the engine's metrics").null("not said"),
        integer("tasks_done", "tasks", "the engine's metrics").null("not said"),
        integer("tasks_failed", "tasks", "the engine's metrics").null("not said"),
        counter("restarts_total", "restarts", "the engine's metrics").null("not said"),
    ],
};

/// One sample of an open-ended metric.
pub const METRICS: Table = Table {
    name: "metrics",
    meaning: "one sample of an open-ended metric",
    kind: TableKind::Sample,
    interval: Span::seconds(10),
    columns: &[
        id("name", "the exposition"),
        map("labels", "the exposition").identity(),
        float("value", "the metric's", "the exposition")
            .null("from here on there is no number: the series has ended, or says NaN"),
    ],
};
