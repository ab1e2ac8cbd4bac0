//! The bytes of a segment: a header, then frames.
//!
//! Segment header: 8 bytes of magic with the format's version, 8 bytes base offset. Frame: length u32, CRC32C u32 (both
//! little-endian; over and of what follows), offset u64, timestamp i64, flags u8, key, headers, value.

use tidewatch_model::Timestamp;
use tidewatch_model::ports::Record;

/// Begins every segment; the last byte is the version of the format.
pub const MAGIC: [u8; 8] = *b"TWLOG\0\0\x01";
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 16;
/// Length and checksum.
const PREFIX_BYTES: usize = 8;
/// The least that a frame takes: prefix, offset, timestamp, flags, lengths of key and headers.
pub const LEAST_FRAME_BYTES: usize = PREFIX_BYTES + 8 + 8 + 1 + 4 + 2;

const TOMBSTONE: u8 = 1;

/// The header of a segment.
pub fn segment_header(base: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &base.to_le_bytes()].concat()
}

/// A record as a frame.
pub fn encode(offset: u64, record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; PREFIX_BYTES]);
    out.extend(offset.to_le_bytes());
    out.extend(record.timestamp.0.to_le_bytes());
    out.push(if record.value.is_none() { TOMBSTONE } else { 0 });
    out.extend((record.key.len() as u32).to_le_bytes());
    out.extend(&record.key);
    out.extend((record.headers.len() as u16).to_le_bytes());
    for (name, value) in &record.headers {
        out.extend((name.len() as u16).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(value);
    }
    out.extend(record.value.as_deref().unwrap_or_default());
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    let crc = crc32c::crc32c(&out[start + PREFIX_BYTES..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A good frame, and its length in bytes.
    Frame {
        /// The record's offset.
        offset: u64,
        /// The record.
        record: Record,
        /// Bytes to the next frame.
        bytes: usize,
    },
    /// A frame whose content was changed; the next one is so many bytes on, if its length is right.
    Corrupt {
        /// Bytes to the next frame.
        bytes: usize,
    },
    /// Not a whole frame.
    Cut,
    /// No length that a frame could have.
    Garbage,
}

/// Looks at the beginning of `bytes`. `limit` is the largest length that a frame may have.
pub fn decode(bytes: &[u8], limit: usize) -> Found {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Found::Cut };
    let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    let crc = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    if length < LEAST_FRAME_BYTES - PREFIX_BYTES || length > limit {
        return Found::Garbage;
    }
    let Some(body) = rest.get(..length) else { return Found::Cut };
    let total = PREFIX_BYTES + length;
    if crc32c::crc32c(body) != crc {
        return Found::Corrupt { bytes: total };
    }
    match decode_body(body) {
        Some((offset, record)) => Found::Frame { offset, record, bytes: total },
        None => Found::Corrupt { bytes: total },
    }
}

fn decode_body(body: &[u8]) -> Option<(u64, Record)> {
    let mut at = body;
    let offset = u64::from_le_bytes(take(&mut at)?);
    let timestamp = Timestamp(i64::from_le_bytes(take(&mut at)?));
    let [flags] = take(&mut at)?;
    let key_bytes = u32::from_le_bytes(take(&mut at)?) as usize;
    let key = slice(&mut at, key_bytes)?.to_vec();
    let count = u16::from_le_bytes(take(&mut at)?);
    let mut headers = Vec::with_capacity(usize::from(count.min(64)));
    for _ in 0..count {
        let name_bytes = usize::from(u16::from_le_bytes(take(&mut at)?));
        let name = std::str::from_utf8(slice(&mut at, name_bytes)?).ok()?.to_string();
        let value_bytes = u32::from_le_bytes(take(&mut at)?) as usize;
        headers.push((name, slice(&mut at, value_bytes)?.to_vec()));
    }
    let value = if flags & TOMBSTONE == TOMBSTONE { None } else { Some(at.to_vec()) };
    Some((offset, Record { key, headers, value, timestamp }))
}

fn take<const N: usize>(at: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = at.split_first_chunk::<N>()?;
    *at = rest;
    Some(*first)
}

fn slice<'a>(at: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = at.split_at_checked(length)?;
    *at = rest;
    Some(first)
}

/// One step of a walk over frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A record at a byte position.
    Record {
        /// Where the frame begins.
        at: usize,
        /// Where it ends.
        end: usize,
        /// Its offset.
        offset: u64,
        /// The record.
        record: Record,
    },
    /// Bytes that are no frame, up to where the next good one begins.
    Damage {
        /// Where good frames begin again.
        end: usize,
    },
    /// Nothing good from here on: the end, a frame that is not whole yet, or damage.
    End {
        /// Bytes that are left over.
        left: usize,
    },
}

/// Walks on from a byte position. Damage is skipped to the next frame whose checksum holds and whose offset is not
/// before `expected`: each byte is looked at once, so the walk always ends.
pub fn step(bytes: &[u8], at: usize, expected: u64, limit: usize) -> Step {
    match decode(&bytes[at..], limit) {
        Found::Frame { offset, record, bytes } if offset >= expected => {
            Step::Record { at, end: at + bytes, offset, record }
        }
        _ => match (at + 1..bytes.len()).find(|start| plausible(&bytes[*start..], expected, limit)) {
            Some(end) => Step::Damage { end },
            None => Step::End { left: bytes.len() - at },
        },
    }
}

/// Offsets that may be missing between two frames of one segment: more than a segment can hold.
const OFFSET_SLACK: u64 = 1 << 24;

/// A cheap look before the checksum, so that the search through damage stays linear.
fn plausible(bytes: &[u8], expected: u64, limit: usize) -> bool {
    let Some(offset) = bytes.get(8..16).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes) else {
        return false;
    };
    if offset < expected || offset - expected > OFFSET_SLACK {
        return false;
    }
    matches!(decode(bytes, limit), Found::Frame { .. })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(value: Option<&[u8]>) -> Record {
        Record {
            key: b"k".to_vec(),
            headers: vec![("h".to_string(), b"v".to_vec())],
            value: value.map(<[u8]>::to_vec),
            timestamp: Timestamp(-5),
        }
    }

    #[test]
    fn frames_round_trip() {
        for value in [Some(&b"hello"[..]), Some(b""), None] {
            let mut bytes = Vec::new();
            encode(7, &record(value), &mut bytes);
            assert_eq!(decode(&bytes, 1000), Found::Frame { offset: 7, record: record(value), bytes: bytes.len() });
            assert!((0..bytes.len()).all(|length| decode(&bytes[..length], 1000) == Found::Cut));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_next_frame_found() {
        let mut first = Vec::new();
        encode(7, &record(Some(b"hello")), &mut first);
        let mut both = first.clone();
        encode(8, &record(Some(b"world")), &mut both);
        for bit in 0..first.len() * 8 {
            let mut damaged = both.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(step(&damaged, 0, 7, 1000), Step::Damage { end: first.len() }, "bit {bit}");
        }
    }
}
