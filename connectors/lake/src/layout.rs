//! Names of everything in the lake.

use tidewatch_model::{Span, Timestamp};

/// The public root: safe to read with a plain glob.
pub const PUBLIC: &str = "lake/";
/// Hot files.
pub const HOT: &str = "internal/hot/";
/// Commit chains.
pub const LOG: &str = "internal/log/";
/// Claims.
pub const SETTLE: &str = "internal/settle/";
/// Schemas.
pub const SCHEMA: &str = "internal/schema/";

/// `20261124T050000Z`.
pub fn compact_time(ts: Timestamp) -> String {
    ts.utc().format("%Y%m%dT%H%M%SZ").to_string()
}

fn partition_name(topic: &str, partition: u32) -> String {
    format!("{topic}-{partition:05}")
}

/// The folder of a partition's chain.
pub fn chain_folder(topic: &str, partition: u32) -> String {
    format!("{LOG}{}/", partition_name(topic, partition))
}

/// One entry of a chain.
pub fn chain_entry(topic: &str, partition: u32, seq: u64) -> String {
    format!("{}{seq:020}.json", chain_folder(topic, partition))
}

/// A hot file; `random` keeps names of different attempts apart.
pub fn hot_file(table: &str, topic: &str, partition: u32, seq: u64, window_start: Timestamp, random: u64) -> String {
    format!(
        "{HOT}{table}/{}/{seq:020}-{}-{random:016x}.parquet",
        partition_name(topic, partition),
        compact_time(window_start)
    )
}

/// The folder of a window's claims.
pub fn claim_folder(table: &str, window_start: Timestamp, window: Span) -> String {
    format!("{SETTLE}{table}/{}-{window}/", compact_time(window_start))
}

/// The claim of a generation.
pub fn claim(table: &str, window_start: Timestamp, window: Span, generation: u32) -> String {
    format!("{}g{generation:04}.json", claim_folder(table, window_start, window))
}

/// What came of a claim: size and hash of its output.
pub fn receipt(table: &str, window_start: Timestamp, window: Span, generation: u32) -> String {
    format!("{}g{generation:04}.done", claim_folder(table, window_start, window))
}

/// A settled file.
pub fn settled_file(table: &str, window_start: Timestamp, window: Span, generation: u32, hash: &str) -> String {
    let date = window_start.date();
    format!(
        "{PUBLIC}{table}/dt={date}/{table}-{}-{window}-g{generation:02}-000-{}.parquet",
        compact_time(window_start),
        &hash[..8]
    )
}

/// A registered schema.
pub fn schema_file(table: &str, fingerprint: &str) -> String {
    format!("{SCHEMA}{table}/{fingerprint}.json")
}
