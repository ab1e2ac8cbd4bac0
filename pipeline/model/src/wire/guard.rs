//! The guard: walks the payload's flatbuffers and bounds everything that decoding would trust, before it is decoded.
//!
//! Arrow IPC has no checksum and its decoder trusts lengths: a changed one can panic, allocate without bound or, in
//! compressed bodies, abort the process. What passes here is uncompressed, of the few types that cross a border, and
//! every buffer lies within the message.

use arrow::ipc::{Field, TimeUnit};
use arrow::ipc::{MessageHeader, RecordBatch, Schema, Type, root_as_message};

use super::WireError;
use crate::limits::{FRAME_METADATA_BYTES, FRAME_ROWS, TABLE_COLUMNS};

const CONTINUATION: [u8; 4] = [0xFF; 4];

/// What a schema asks of the record batches behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Where its message ends.
    pub end: usize,
    /// Nodes of a batch.
    nodes: usize,
    /// Buffers of a batch.
    buffers: usize,
}

/// Checks a payload: one schema, any dictionaries, one record batch, the end, and nothing else. Returns the schema's shape when
/// nothing stands between it and the batch.
///
/// # Errors
/// [`WireError::Guard`] with the byte at which something is not as it must be.
pub fn guard(payload: &[u8]) -> Result<Option<Shape>, WireError> {
    let mut at = 0;
    let mut first_end = 0;
    let mut seen = Seen { columns: None, buffers: 0, nodes: 0, dictionaries: 0, batches: 0 };
    while at < payload.len() {
        match next_message(payload, at)? {
            None => {
                check_end(payload, at, seen.batches)?;
                let shape = Shape { end: first_end, nodes: seen.nodes, buffers: seen.buffers };
                return Ok((seen.dictionaries == 0).then_some(shape));
            }
            Some(message) => {
                check_message(&message, &mut seen)?;
                if at == 0 {
                    first_end = message.end;
                }
                at = message.end;
            }
        }
    }
    Err(wrong(at, "the end-of-stream marker is missing"))
}

/// Checks what follows a schema of this shape: one record batch, the end, and nothing else. Returns the batch's metadata and its
/// body.
///
/// # Errors
/// As [`guard`].
pub fn guard_after<'a>(payload: &'a [u8], shape: &Shape) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let batch = next_message(payload, shape.end)?;
    let batch =
        batch.ok_or_else(|| wrong(shape.end + 8, "expected one record batch and then the end of the payload"))?;
    let (nodes, buffers) = (shape.nodes, shape.buffers);
    let mut seen = Seen { columns: Some(nodes), nodes, buffers, dictionaries: 0, batches: 0 };
    check_message(&batch, &mut seen)?;
    if batch.end >= payload.len() {
        return Err(wrong(payload.len(), "the end-of-stream marker is missing"));
    }
    match next_message(payload, batch.end)? {
        None => check_end(payload, batch.end, seen.batches)?,
        Some(_) => return Err(wrong(batch.end, "expected one record batch and then the end of the payload")),
    }
    Ok((batch.metadata, &payload[batch.end - batch.body_bytes..batch.end]))
}

/// Checks that the marker of the end is the end.
fn check_end(payload: &[u8], at: usize, batches: usize) -> Result<(), WireError> {
    let end = at + 8;
    match payload.len() == end && batches == 1 {
        true => Ok(()),
        false => Err(wrong(end.min(payload.len()), "expected one record batch and then the end of the payload")),
    }
}

struct Seen {
    columns: Option<usize>,
    nodes: usize,
    buffers: usize,
    dictionaries: usize,
    batches: usize,
}

/// One encapsulated message: its metadata, and where its body lies.
struct Message<'a> {
    at: usize,
    metadata: &'a [u8],
    body_bytes: usize,
    end: usize,
}

fn wrong(offset: usize, problem: impl Into<String>) -> WireError {
    WireError::Guard { offset, problem: problem.into() }
}

fn next_message(payload: &[u8], at: usize) -> Result<Option<Message<'_>>, WireError> {
    let prefix = payload.get(at..at + 8).ok_or_else(|| wrong(at, "a message's prefix is cut off"))?;
    if prefix[..4] != CONTINUATION {
        return Err(wrong(at, "expected a continuation marker"));
    }
    let length = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    if length == 0 {
        return Ok(None);
    }
    if length > FRAME_METADATA_BYTES || !length.is_multiple_of(8) {
        return Err(wrong(
            at + 4,
            format!("metadata of {length} bytes: expected a multiple of 8 up to {FRAME_METADATA_BYTES}"),
        ));
    }
    let start = at + 8;
    let metadata = payload.get(start..start + length).ok_or_else(|| wrong(start, "a message's metadata is cut off"))?;
    let message = root_as_message(metadata).map_err(|error| wrong(start, format!("damaged metadata: {error}")))?;
    let body = start + length;
    let body_bytes = usize::try_from(message.bodyLength()).ok().filter(|bytes| *bytes <= payload.len() - body);
    let body_bytes =
        body_bytes.ok_or_else(|| wrong(start, format!("a body of {} bytes does not fit", message.bodyLength())))?;
    Ok(Some(Message { at: start, metadata, body_bytes, end: body + body_bytes }))
}

fn check_message(message: &Message, seen: &mut Seen) -> Result<(), WireError> {
    let at = message.at;
    let parsed = root_as_message(message.metadata).map_err(|error| wrong(at, error.to_string()))?;
    match parsed.header_type() {
        MessageHeader::Schema if seen.columns.is_none() => {
            let schema = parsed.header_as_schema().ok_or_else(|| wrong(at, "the schema is missing"))?;
            check_schema(&schema, at, seen)?;
            if message.body_bytes != 0 {
                return Err(wrong(at, "a schema has no body"));
            }
        }
        MessageHeader::DictionaryBatch if seen.columns.is_some() && seen.batches == 0 => {
            let dictionary =
                parsed.header_as_dictionary_batch().ok_or_else(|| wrong(at, "the dictionary is missing"))?;
            seen.dictionaries += 1;
            if dictionary.isDelta() || seen.dictionaries > TABLE_COLUMNS {
                return Err(wrong(at, "delta dictionaries, and more of them than columns, are not accepted"));
            }
            let batch = dictionary.data().ok_or_else(|| wrong(at, "the dictionary has no values"))?;
            check_batch(&batch, message, 1, 3)?;
        }
        MessageHeader::RecordBatch if seen.columns.is_some() && seen.batches == 0 => {
            let batch = parsed.header_as_record_batch().ok_or_else(|| wrong(at, "the record batch is missing"))?;
            check_batch(&batch, message, seen.nodes, seen.buffers)?;
            seen.batches += 1;
        }
        other => return Err(wrong(at, format!("unexpected message {other:?}"))),
    }
    Ok(())
}

fn check_schema(schema: &Schema, at: usize, seen: &mut Seen) -> Result<(), WireError> {
    let fields = schema.fields().ok_or_else(|| wrong(at, "the schema has no columns"))?;
    if fields.is_empty() || fields.len() > TABLE_COLUMNS {
        return Err(wrong(at, format!("{} columns: expected 1 to {TABLE_COLUMNS}", fields.len())));
    }
    for field in fields {
        let (nodes, buffers) = shape(&field).map_err(|problem| wrong(at, problem))?;
        seen.nodes += nodes;
        seen.buffers += buffers;
    }
    seen.columns = Some(fields.len());
    Ok(())
}

/// How many nodes and buffers a column of an accepted type has.
fn shape(field: &Field) -> Result<(usize, usize), String> {
    let name = field.name().unwrap_or_default();
    let children = field.children().map_or(0, |children| children.len());
    let refused = |what: &str| Err(format!("column '{name}': {what} is not accepted"));
    let is_text = field.type_type() == Type::Utf8;
    if let Some(dictionary) = field.dictionary() {
        let index = dictionary.indexType();
        let int32 = index.is_none_or(|index| index.bitWidth() == 32 && index.is_signed());
        return if is_text && int32 && children == 0 {
            Ok((1, 2))
        } else {
            refused("a dictionary that is not of Int32 and Utf8")
        };
    }
    match field.type_type() {
        Type::Utf8 if children == 0 => Ok((1, 3)),
        Type::Bool if children == 0 => Ok((1, 2)),
        Type::FloatingPoint if children == 0 => match field.type_as_floating_point().map(|kind| kind.precision()) {
            Some(arrow::ipc::Precision::DOUBLE) => Ok((1, 2)),
            _ => refused("a float that is not of 64 bits"),
        },
        Type::Int if children == 0 => match field.type_as_int().map(|kind| (kind.bitWidth(), kind.is_signed())) {
            Some((64, true)) => Ok((1, 2)),
            _ => refused("an integer that is not Int64"),
        },
        Type::Timestamp if children == 0 => {
            match field.type_as_timestamp().map(|kind| (kind.unit(), kind.timezone())) {
                Some((TimeUnit::MICROSECOND, Some("UTC"))) => Ok((1, 2)),
                _ => refused("a timestamp that is not in microseconds, UTC"),
            }
        }
        Type::Map if is_text_map(field) => Ok((4, 2 + 1 + 3 + 3)),
        other => refused(&format!("type {other:?}")),
    }
}

fn is_text_map(field: &Field) -> bool {
    let Some(children) = field.children().filter(|children| children.len() == 1) else { return false };
    let entries = children.get(0);
    let Some(pair) = entries.children().filter(|pair| pair.len() == 2) else { return false };
    let plain = |index: usize| {
        let part = pair.get(index);
        part.type_type() == Type::Utf8
            && part.dictionary().is_none()
            && part.children().is_none_or(|inner| inner.is_empty())
    };
    entries.type_type() == Type::Struct_ && entries.dictionary().is_none() && plain(0) && plain(1)
}

fn check_batch(batch: &RecordBatch, message: &Message, nodes: usize, buffers: usize) -> Result<(), WireError> {
    let at = message.at;
    if batch.compression().is_some() {
        return Err(wrong(at, "compressed bodies are not accepted"));
    }
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(wrong(at, "variadic buffers are not accepted"));
    }
    let rows = usize::try_from(batch.length()).ok().filter(|rows| *rows <= FRAME_ROWS);
    if rows.is_none() {
        return Err(wrong(at, format!("{} rows: expected 0 to {FRAME_ROWS}", batch.length())));
    }
    let found = batch.nodes().map_or(0, |nodes| nodes.len());
    if found != nodes {
        return Err(wrong(at, format!("{found} nodes: the schema has {nodes}")));
    }
    for node in batch.nodes().into_iter().flatten() {
        // Entries of maps may be more than rows, but never more than bytes in the body.
        let most = (message.body_bytes + 1).max(rows.unwrap_or(0)) as i64;
        if node.length() < 0 || node.length() > most || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(wrong(at, format!("a node of length {} with {} nulls", node.length(), node.null_count())));
        }
    }
    let found = batch.buffers().map_or(0, |buffers| buffers.len());
    if found != buffers {
        return Err(wrong(at, format!("{found} buffers: the schema has {buffers}")));
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        let inside =
            buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end <= message.body_bytes as i64);
        if !inside || buffer.offset() % 8 != 0 {
            return Err(wrong(
                at,
                format!(
                    "a buffer at {} of {} bytes does not lie in the body of {}",
                    buffer.offset(),
                    buffer.length(),
                    message.body_bytes
                ),
            ));
        }
    }
    Ok(())
}
