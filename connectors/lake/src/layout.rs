//! Names of everything in the lake.

use tidewatch_model::{Span, Timestamp};

use crate::claim::WindowKey;

/// The public root: safe to read with a plain glob.
pub const PUBLIC: &str = "lake/";
/// Settled files: private, until a public file takes them in.
pub const SETTLED: &str = "internal/settled/";
/// Hot files.
pub const HOT: &str = "internal/hot/";
/// Commit chains.
pub const LOG: &str = "internal/log/";
/// Claims.
pub const SETTLE: &str = "internal/settle/";
/// Compactions.
pub const COMPACT: &str = "internal/compact/";
/// Manifests: lists of public files whose compactions are gone.
pub const MANIFEST: &str = "internal/manifest/";
/// Days that are not kept any more.
pub const RETENTION: &str = "internal/retention/";
/// Schemas.
pub const SCHEMA: &str = "internal/schema/";

/// `20261124T050000Z`.
pub fn compact_time(ts: Timestamp) -> String {
    ts.utc().format("%Y%m%dT%H%M%SZ").to_string()
}

/// Between a chain's folder and the names of its floors.
const FLOOR: &str = "/_floor";

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

/// The chain of an entry or a floor, by its path: the folder of both.
pub fn chain_of(path: &str) -> &str {
    path.find(FLOOR).or(path.rfind('/')).map_or("", |end| &path[..=end])
}

/// The chain of a hot file, by its path.
pub fn chain_of_hot(path: &str) -> Option<String> {
    let partition = path.strip_prefix(HOT)?.split('/').nth(1)?;
    Some(format!("{LOG}{partition}/"))
}

/// The folder of a chain's floors.
pub fn floor_folder(chain: &str) -> String {
    format!("{}{FLOOR}/", chain.trim_end_matches('/'))
}

/// A floor of a chain: entries up to `seq` are no part of it.
pub fn floor(chain: &str, seq: u64) -> String {
    format!("{}{seq:020}.json", floor_folder(chain))
}

/// Whether a path is that of a floor.
pub fn is_floor(path: &str) -> bool {
    path.contains(FLOOR)
}

/// The number in the name of an entry, a floor, a hot file or a manifest.
pub fn number(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    name.split(['.', '-']).next()?.parse().ok()
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

/// The folder of a public window's compactions.
pub fn compaction_folder(table: &str, window_start: Timestamp, window: Span) -> String {
    format!("{COMPACT}{table}/{}-{window}/", compact_time(window_start))
}

/// The compaction of a generation.
pub fn compaction(table: &str, window_start: Timestamp, window: Span, generation: u32) -> String {
    format!("{}g{generation:04}.json", compaction_folder(table, window_start, window))
}

/// Whether a path is that of a claim or a compaction, and not of its receipt.
pub fn is_claim(path: &str) -> bool {
    path.ends_with(".json")
}

/// What came of a claim or a compaction, by its path: size and hash of its outputs.
pub fn receipt(claim: &str) -> String {
    format!("{}.done", claim.trim_end_matches(".json"))
}

/// The window and the generation of a settled file, by its path.
pub fn place_of_settled(path: &str) -> Option<(WindowKey, u32)> {
    let (table, name) = path.strip_prefix(SETTLED)?.split_once('/')?;
    let mut parts = name.strip_prefix(table)?.strip_prefix('-')?.split('-');
    let time = parts.next()?;
    let digits = |from, to| time.get(from..to);
    let (date, hour) = ([digits(0, 4)?, digits(4, 6)?, digits(6, 8)?].join("-"), digits(9, 11)?);
    let start = format!("{date}T{hour}:{}:{}Z", digits(11, 13)?, digits(13, 15)?).parse().ok()?;
    let window = parts.next()?.parse().ok()?;
    let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
    Some(((table.to_string(), start, window), generation))
}

/// A settled file.
pub fn settled_file(table: &str, window_start: Timestamp, window: Span, generation: u32, hash: &str) -> String {
    let time = compact_time(window_start);
    format!("{SETTLED}{table}/{table}-{time}-{window}-g{generation:02}-{}.parquet", &hash[..8])
}

/// A public file: the so many-th of its window's generation.
pub fn public_file(key: &WindowKey, generation: u32, number: usize, hash: &str) -> String {
    let (table, window_start, window) = key;
    format!(
        "{}dt={}/{table}-{}-{window}-g{generation:02}-{number:03}-{}.parquet",
        table_folder(table),
        window_start.date(),
        compact_time(*window_start),
        &hash[..8]
    )
}

/// The folder of the lists of public files of a table's day.
pub fn manifest_folder(table: &str, day: &str) -> String {
    format!("{MANIFEST}{table}/{day}/")
}

/// A list of them; the one with the largest number counts.
pub fn manifest(table: &str, day: &str, number: u64) -> String {
    format!("{}{number:08}.json", manifest_folder(table, day))
}

/// The table and the day in the path of a manifest or of a word on retention, both below a root.
pub fn table_and_day<'a>(root: &str, path: &'a str) -> Option<(&'a str, &'a str)> {
    let (table, rest) = path.strip_prefix(root)?.split_once('/')?;
    Some((table, rest.split(['/', '.']).next()?))
}

/// The claim or compaction of a receipt, or of itself.
pub fn claim_of(path: &str) -> String {
    path.strip_suffix(".done").map_or_else(|| path.to_string(), |stem| format!("{stem}.json"))
}

/// Says that days of a table before this one are not kept.
pub fn retention(table: &str, day: &str) -> String {
    format!("{RETENTION}{table}/{day}.json")
}

/// The folder of a table's public files.
pub fn table_folder(table: &str) -> String {
    format!("{PUBLIC}{table}/")
}

/// The table and the day in the path of a public file.
pub fn table_and_day_of_public(path: &str) -> Option<(&str, &str)> {
    let (table, rest) = path.strip_prefix(PUBLIC)?.split_once('/')?;
    Some((table, rest.strip_prefix("dt=")?.split('/').next()?))
}

/// A registered schema.
pub fn schema_file(table: &str, fingerprint: &str) -> String {
    format!("{SCHEMA}{table}/{fingerprint}.json")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_file_says_where_it_belongs() {
        let start: Timestamp = "2026-11-24T05:05:00Z".parse().unwrap();
        let path = settled_file("train_step", start, Span::minutes(5), 12, "3fa9c1d2aa");
        assert_eq!(place_of_settled(&path), Some((("train_step".to_string(), start, Span::minutes(5)), 12)), "{path}");
        for other in
            ["internal/settled/host/x.parquet", "internal/settled/host/host-2026-5m-g01-a.parquet", "lake/host/x"]
        {
            assert_eq!(place_of_settled(other), None, "{other}");
        }
    }
}
