//! Compaction: settled files of a public window become few public ones. Where they are large their row groups are taken as they
//! are, byte for byte, which costs no more than copying; where they are small their rows are sorted anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::writer::SerializedFileWriter;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::ports::{Created, Store};
use tidewatch_model::{Span, Timestamp};

use crate::claim::{self, Compaction, CompactionReceipt, Output, Receipt, SettledFile, VERSION, WindowKey};
use crate::error::LakeError;
use crate::layout;
use crate::merge::{Merge, Source};
use crate::parquet_files::{
    ARROW_SCHEMA, PUBLIC_LEVEL, SETTLED_LEVEL, damaged, footer_rows, open, settled_properties, settled_to_bytes, wrong,
};
use crate::view::View;

/// How long a public window waits for settled files that do not come, as when a hot file is damaged.
const STUCK: Span = Span::minutes(15);
/// Files that come after their window was made public wait so long for others.
const LATE_LOT: Span = Span::hours(1);
/// Rows of a settled file on average from which on row groups are taken as they are: half a group.
const SPLICE_ROWS: u64 = 65_536;

/// Settled files of each public window that are to be made public now. `open` are windows of which rows are not settled yet; so many
/// bytes do not wait for the end of their window.
pub fn due(
    view: &View,
    open: &BTreeSet<WindowKey>,
    is_over: impl Fn(&WindowKey) -> bool,
    full: u64,
    (now, force): (Timestamp, bool),
) -> Vec<(WindowKey, Vec<SettledFile>)> {
    let mut lots: BTreeMap<WindowKey, Vec<&Receipt>> = BTreeMap::new();
    for (claim, receipt) in view.unclaimed_settled() {
        lots.entry(claim.public_key()).or_default().push(receipt);
    }
    lots.retain(|key, lot| {
        let is_full = lot.iter().map(|receipt| receipt.file.bytes).sum::<u64>() >= full;
        let is_whole = || !open.contains(key) || now - (key.1 + key.2) >= STUCK;
        let has_waited = || lot.iter().any(|receipt| now - receipt.settled_at >= LATE_LOT);
        force || is_full || is_over(key) && is_whole() && (!view.was_public_whole(key) || has_waited())
    });
    let files = |lot: Vec<&Receipt>| lot.into_iter().map(|receipt| receipt.file.clone()).collect();
    lots.into_iter().map(|(key, lot)| (key, files(lot))).collect()
}

/// Settled files that are what was settled, and what is wrong with the others: those stay where they are, and hold up nobody.
pub fn whole(store: &dyn Store, files: Vec<SettledFile>, problems: &mut Vec<String>) -> Vec<SettledFile> {
    let is_whole = |file: &SettledFile| match store.get(&file.path) {
        Ok(bytes) if hex(&Sha256::digest(&bytes)) == file.sha256 => Ok(()),
        Ok(_) => Err(format!("{}: its content is not what was settled: its rows do not become public", file.path)),
        Err(error) => Err(error.to_string()),
    };
    let mut whole = Vec::with_capacity(files.len());
    for file in files {
        match is_whole(&file) {
            Ok(()) => whole.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    whole
}

/// Says what becomes of settled files, once and for all.
pub fn claim(
    store: &dyn Store,
    view: &View,
    key: &WindowKey,
    mut files: Vec<SettledFile>,
    most_bytes: u64,
) -> Result<(), LakeError> {
    let (table, window_start, window) = key;
    let generation = view.public_generation(key) + 1;
    files.sort_by_key(|file| (file.window_start, file.generation));
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let hash = hex(&Sha256::digest(serde_json::to_vec(&paths).unwrap_or_default()));
    let mut lots: Vec<Vec<SettledFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        match lots.last_mut() {
            // A file has one schema: where columns were added or changed, another begins.
            Some(lot) if bytes + file.bytes <= most_bytes && lot[0].schema == file.schema => {
                bytes += file.bytes;
                lot.push(file);
            }
            _ => {
                bytes = file.bytes;
                lots.push(vec![file]);
            }
        }
    }
    let output = |(number, inputs)| Output { path: layout::public_file(key, generation, number, &hash), inputs };
    let compaction = Compaction {
        version: VERSION,
        table: table.clone(),
        window_start: *window_start,
        window: *window,
        generation,
        outputs: lots.into_iter().enumerate().map(output).collect(),
    };
    let path = layout::compaction(table, *window_start, *window, generation);
    claim::create(store, &path, &compaction)
}

/// Writes a compaction's outputs, and says so.
pub fn execute(
    store: &dyn Store,
    path: &str,
    compaction: &Compaction,
    memory: usize,
    now: Timestamp,
) -> Result<CompactionReceipt, LakeError> {
    let mut files = Vec::with_capacity(compaction.outputs.len());
    for output in &compaction.outputs {
        let bytes = bytes_of(store, compaction, output, memory)?;
        let bytes = match store.create(&output.path, &bytes)? {
            Created::Now => bytes,
            // Whoever was first has written it: what lies there is what counts.
            Created::Exists => store.get(&output.path)?,
        };
        if footer_rows(&output.path, bytes.clone())? != output.rows() {
            let problem = format!("its footer does not say {} rows, as its compaction does", output.rows());
            return Err(LakeError::Damaged { path: output.path.clone(), problem });
        }
        let times = output.inputs.iter().map(|input| (input.min_ts, input.max_ts));
        let (min_ts, max_ts) = times
            .reduce(|(min, max), (low, high)| (min.min(low), max.max(high)))
            .ok_or_else(|| wrong(&compaction.table, "no rows"))?;
        files.push(SettledFile {
            path: output.path.clone(),
            table: compaction.table.clone(),
            window_start: compaction.window_start,
            window: compaction.window,
            generation: compaction.generation,
            rows: output.rows(),
            bytes: bytes.len() as u64,
            min_ts,
            max_ts,
            sha256: hex(&Sha256::digest(&bytes)),
            schema: output.inputs[0].schema.clone(),
        });
    }
    let receipt = CompactionReceipt { version: VERSION, compacted_at: now, files };
    let path = layout::receipt(path);
    store.create(&path, &claim::bytes(&path, &receipt)?)?;
    Ok(receipt)
}

/// What an output's inputs become: a function of their bytes.
fn bytes_of(store: &dyn Store, compaction: &Compaction, output: &Output, memory: usize) -> Result<Vec<u8>, LakeError> {
    let read = |path: &str| {
        let bytes = store.get(path)?;
        let expected = output.inputs.iter().find(|input| input.path == path).map(|input| input.sha256.as_str());
        if expected == Some(&hex(&Sha256::digest(&bytes))) {
            return Ok(bytes);
        }
        let problem = "its content is not what was settled: its rows do not become public".to_string();
        Err(LakeError::Damaged { path: path.to_string(), problem })
    };
    let table = compaction.table.as_str();
    let facts = |sources: String| {
        [
            ("table", compaction.table.clone()),
            ("window_start", compaction.window_start.to_string()),
            ("window", compaction.window.to_string()),
            ("generation", compaction.generation.to_string()),
            ("sources", sources),
            ("rows", output.rows().to_string()),
        ]
    };
    if output.rows() >= SPLICE_ROWS * output.inputs.len() as u64 {
        let inputs = output.inputs.iter().map(|input| {
            let bytes = Bytes::from(read(&input.path)?);
            let metadata = metadata_of(&input.path, &bytes)?;
            Ok((input.path.as_str(), bytes, metadata))
        });
        let inputs = inputs.collect::<Result<Vec<_>, LakeError>>()?;
        let sources: Vec<String> = inputs.iter().map(|(_, _, metadata)| sources_of(metadata)).collect();
        return splice(table, inputs, &facts(sources.join(",")));
    }
    let (mut sources, mut uncompressed) = (Vec::with_capacity(output.inputs.len()), 0);
    for input in &output.inputs {
        let bytes = Bytes::from(read(&input.path)?);
        let metadata = metadata_of(&input.path, &bytes)?;
        sources.push(sources_of(&metadata));
        uncompressed +=
            metadata.row_groups().iter().map(|group| group.total_byte_size().max(0) as usize).sum::<usize>();
    }
    let there = output.inputs.iter().map(|input| Source::There(input.path.clone())).collect();
    let merge = Merge::new(table, there, &read)?;
    // Maps and long texts take more than their columns say.
    let stored = uncompressed / output.rows().max(1) as usize * DECODED;
    let fits = memory / stored.max(merge.schema.fields().len() * BYTES_OF_A_VALUE).max(1);
    settled_to_bytes(table, &merge.schema, &facts(sources.join(",")), merge.chunks(fits), PUBLIC_LEVEL)
}

/// What a value takes in memory, texts among them, seldom more than this on average.
const BYTES_OF_A_VALUE: usize = 24;
/// How much larger texts are in memory than where equal ones are written once.
const DECODED: usize = 4;

/// The entries that a file's rows came from, as its footer says.
fn sources_of(metadata: &ParquetMetaData) -> String {
    let facts = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let sources = facts.filter(|fact| fact.key == "tidewatch.sources").find_map(|fact| fact.value.clone());
    sources.unwrap_or_default()
}

fn metadata_of(path: &str, bytes: &Bytes) -> Result<ParquetMetaData, LakeError> {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    reader.parse_and_finish(bytes).map_err(|error| damaged(path, error))
}

/// Row groups of files of one schema, one after the other, as they are.
fn splice(
    table: &str,
    inputs: Vec<(&str, Bytes, ParquetMetaData)>,
    facts: &[(&str, String)],
) -> Result<Vec<u8>, LakeError> {
    let size = inputs.iter().map(|(_, bytes, _)| bytes.len()).sum();
    let mut writer: Option<SerializedFileWriter<Vec<u8>>> = None;
    for (path, bytes, metadata) in inputs {
        let writer = match &mut writer {
            Some(writer) => writer,
            None => {
                let file = metadata.file_metadata();
                let arrow = file.key_value_metadata().into_iter().flatten().find(|fact| fact.key == ARROW_SCHEMA);
                let properties = settled_properties(
                    table,
                    open(path, bytes.to_vec())?.schema(),
                    facts,
                    arrow.cloned(),
                    SETTLED_LEVEL,
                )?
                .build();
                let root = file.schema_descr().root_schema_ptr();
                let new = SerializedFileWriter::new(Vec::with_capacity(size), root, Arc::new(properties));
                writer.insert(new.map_err(|error| wrong(table, error))?)
            }
        };
        for (group, row_group) in metadata.row_groups().iter().enumerate() {
            let mut next = writer.next_row_group().map_err(|error| wrong(table, error))?;
            for (column, chunk) in row_group.columns().iter().enumerate() {
                let result = ColumnCloseResult {
                    bytes_written: chunk.compressed_size() as u64,
                    rows_written: row_group.num_rows() as u64,
                    metadata: chunk.clone(),
                    bloom_filter: None,
                    column_index: metadata.column_index().map(|index| index[group][column].clone()),
                    offset_index: metadata.offset_index().map(|index| index[group][column].clone()),
                };
                next.append_column(&bytes, result).map_err(|error| damaged(path, error))?;
            }
            next.close().map_err(|error| wrong(table, error))?;
        }
    }
    let writer = writer.ok_or_else(|| wrong(table, "no rows"))?;
    writer.into_inner().map_err(|error| wrong(table, error))
}
