//! Every limit, in one place, with what happens beyond it. Relations between them are checked at compile time.

use crate::time::Span;

/// One record of a log; a larger one is refused to its producer. Kafka's default for a message is the same 1 MiB.
pub const RECORD_BYTES: usize = 1 << 20;
/// Rows in one frame; the guard rejects more (dead letter).
pub const FRAME_ROWS: usize = 1_000_000;
/// Flatbuffer metadata in one IPC message; the guard rejects more (dead letter).
pub const FRAME_METADATA_BYTES: usize = 64 << 10;
/// Columns of one table; the guard rejects more (dead letter).
pub const TABLE_COLUMNS: usize = 1_000;
/// One read from a log.
pub const READ_BYTES: usize = 4 << 20;
/// A segment of the local log; the next one is begun beyond it.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// What a partition of the local log keeps; the oldest segments go first.
pub const LOG_RETENTION_BYTES: u64 = 1 << 30;
/// Partitions of a table in the local log: one for those who bring rows, an agent or a simulation, and one for the process that judges them
/// and may have rows of its own. A partition is written by one process.
pub const LOCAL_PARTITIONS: u32 = 2;
/// How long a partition of the local log keeps records.
pub const LOG_RETENTION: Span = Span::hours(72);
/// The longest time between an append and its fsync.
pub const SYNC_INTERVAL: Span = Span::millis(500);
/// How long rules wait for stragglers, unless they say otherwise.
pub const RULE_DELAY: Span = Span::seconds(2);
/// The longest window that a rule may ask for; longer ones are refused, since their rows are held in memory.
pub const WINDOW_SIZE: Span = Span::hours(2);
/// The same over events and streams, which have few rows: a start reads so much of them again.
pub const LONG_WINDOW_SIZE: Span = Span::hours(24);
/// Windows that may overlap one instant (size / slide); more are refused.
pub const WINDOW_OVERLAP: i64 = 3_600;
/// A row whose ts is further in the future than this is a dead letter: one bad clock must not close everybody's windows.
pub const FUTURE_SKEW: Span = Span::minutes(5);
/// A row older than this is a dead letter.
pub const LATE_ROWS: Span = Span::hours(24);
/// Series of a partition that cleaning remembers, and as many that had no row since it last had to forget some; of further ones the
/// first row is believed, and a copy of a row is not known as one.
pub const CLEAN_SERIES: usize = 50_000;
/// Rows of a series among which a copy is looked for.
pub const CLEAN_ROWS: usize = 4;
/// A partition without rows for this long does not hold the watermark back.
pub const IDLE_TIMEOUT: Span = Span::seconds(30);
/// Groups that one rule remembers; further ones are not watched, counted, and said so.
pub const RULE_GROUPS: usize = 100_000;
/// Series that one table's rules know together; the rows of further ones belong to no group, counted.
pub const TABLE_SERIES: usize = 1_000_000;
/// Rows that one table holds in memory for its windows; the oldest go first, counted.
pub const WINDOW_ROWS: usize = 20_000_000;
/// Rows that a rule whose plan is run may pass through the operators of that plan, per second of its slide: about a tenth of a
/// core. An evaluation that takes more fails, and the rule rests.
pub const PLAN_ROWS_PER_SECOND: u64 = 1_000_000;
/// The same for a rule without a window, per batch of rows.
pub const PLAN_ROWS_PER_BATCH: u64 = 2_000_000;
/// Bytes that one evaluation of a rule whose plan is run may hold; one that needs more fails, and the rule rests.
pub const PLAN_BYTES: usize = 1 << 30;
/// Slides that a rule rests after it took too much; twice as many each further time.
pub const PLAN_REST: u32 = 8;
/// The longest rest, in slides.
pub const PLAN_REST_LONGEST: u32 = 512;
/// How far back in time a ROWS frame and `lag` see: beyond it there is no row.
pub const OVER_ROWS_BACK: Span = Span::hours(1);
/// How much longer than its frames reach the rows of an OVER may stay in memory.
pub const OVER_SWEEP: Span = Span::seconds(10);
/// Rows of a dimension table; a longer one is refused.
pub const DIMENSION_ROWS: usize = 1_000_000;
/// A statement of a rule file; longer ones are refused.
pub const RULE_BYTES: usize = 32 << 10;
/// Static labels, key columns, and annotations of a rule, each; more are refused.
pub const LABELS: usize = 30;
/// The value of a label; a longer one is cut and gets a hash of the whole, so that two stay two.
pub const LABEL_BYTES: usize = 1 << 10;
/// The longest map, as JSON, whose entries become labels.
pub const MAP_BYTES: usize = 16 << 10;
/// A text among an alert's values; a longer one is cut.
pub const VALUE_BYTES: usize = 4 << 10;
/// All of an alert's values together.
pub const VALUES_BYTES: usize = 64 << 10;
/// An annotation; a longer one is cut.
pub const ANNOTATION_BYTES: usize = 4 << 10;
/// Rules in one engine; more are refused.
pub const RULES: usize = 10_000;
/// An alert that saw no row for this long is over, with reason `gone`.
pub const GONE_AFTER: Span = Span::days(7);
/// A series of a sample table without rows for this long is silent: its row rules get no data. Prometheus' look-back.
pub const ROW_SILENCE: Span = Span::minutes(5);
/// How often the silence of series is looked at.
pub const ROW_SILENCE_CHECK: Span = Span::minutes(1);
/// How often rules about silence look at all series.
pub const PRESENCE_SLIDE: Span = Span::seconds(10);
/// How far back in the history a start looks for series that may have fallen silent meanwhile.
pub const SERIES_LOOKBACK: Span = Span::hours(1);
/// An engine whose clock jumped by this much was not running: what it did not see says nothing.
pub const SUSPENDED: Span = Span::seconds(10);
/// How long an alert of a row rule on an event table holds after its last match, unless the rule says otherwise.
pub const EVENT_HOLD: Span = Span::minutes(10);
/// How long a resolved alert is remembered, so that its end can be told again.
pub const RESOLVED_KEPT: Span = Span::minutes(15);
/// Arrow bytes that a lake writer holds per partition before it writes them out.
pub const HOT_BYTES: usize = 64 << 20;
/// Arrow bytes that wait to be written to a lake that does not take them; beyond it nothing more is read from the log, which keeps it.
pub const LAKE_WAITING_BYTES: usize = 1 << 30;
/// Arrow bytes of rows that were committed and are kept until they are settled; beyond it the oldest are read from their files.
pub const KEPT_ROWS_BYTES: usize = 192 << 20;
/// Windows of the lake's private files, where public ones have longer windows.
pub const SETTLED_WINDOW: Span = Span::minutes(5);
/// Most bytes of a public file that is made of several settled ones, and what a settler holds of them at once; half of it becomes
/// public before its window is over.
pub const PUBLIC_FILE_BYTES: u64 = 256 << 20;
/// Bytes of hot files whose rows a settler sorts at once: some 500 MiB of memory with what it makes of them.
pub const SETTLE_BYTES: usize = 256 << 20;
/// Notices waiting for one receiver; beyond it the oldest of the least urgent are given up, counted, and decided anew later.
pub const NOTICES_WAITING: usize = 12_000;
/// One attempt to tell somebody.
pub const NOTIFY_TIMEOUT: Span = Span::seconds(10);
/// How long a notice is tried before it is given up.
pub const NOTIFY_BUDGET: Span = Span::minutes(15);

const _: () = assert!(READ_BYTES >= RECORD_BYTES);
const _: () = assert!(SEGMENT_BYTES >= RECORD_BYTES as u64);
const _: () = assert!(LOG_RETENTION_BYTES >= SEGMENT_BYTES * 4);
const _: () = assert!(LOG_RETENTION.0 > LONG_WINDOW_SIZE.0 + LATE_ROWS.0);
const _: () = assert!(LONG_WINDOW_SIZE.0 >= WINDOW_SIZE.0);
// An alert in JSON, where a character may take two bytes, and its rule's names and static texts come on top.
const _: () = assert!(
    2 * (LABELS * (LABEL_BYTES + ANNOTATION_BYTES) + VALUES_BYTES + 3 * RULE_BYTES) < RECORD_BYTES - (64 << 10)
);
const _: () = assert!(NOTIFY_BUDGET.0 > NOTIFY_TIMEOUT.0);
