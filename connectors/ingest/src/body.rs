//! Bodies as they come: packed or not.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::{BODY_BYTES, IngestError};

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy's block format, without frames.
    Snappy,
}

impl Encoding {
    /// By the text of `Content-Encoding`.
    pub fn of(text: &str) -> Option<Encoding> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" => Some(Encoding::Gzip),
            "snappy" => Some(Encoding::Snappy),
            _ => None,
        }
    }
}

/// A body unpacked, of [`BODY_BYTES`] at most.
///
/// # Errors
/// It is damaged, or larger.
pub fn unpack(body: &[u8], encoding: Encoding) -> Result<Vec<u8>, IngestError> {
    let too_large = || IngestError::TooLarge(format!("the body is larger than {} MiB unpacked", BODY_BYTES >> 20));
    match encoding {
        Encoding::Identity if body.len() > BODY_BYTES => Err(too_large()),
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Gzip => {
            let mut unpacked = Vec::new();
            let read = MultiGzDecoder::new(body).take(BODY_BYTES as u64 + 1).read_to_end(&mut unpacked);
            read.map_err(|error| IngestError::Malformed(format!("not gzip: {error}")))?;
            if unpacked.len() > BODY_BYTES { Err(too_large()) } else { Ok(unpacked) }
        }
        Encoding::Snappy => {
            let damaged = |error| IngestError::Malformed(format!("not snappy: {error}"));
            // The length is the first thing that it says, and is looked at before it is believed.
            if snap::raw::decompress_len(body).map_err(damaged)? > BODY_BYTES {
                return Err(too_large());
            }
            snap::raw::Decoder::new().decompress_vec(body).map_err(damaged)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bodies_are_unpacked_within_bounds() {
        let text = b"a body, a body, a body".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        assert_eq!(unpack(&gzip.finish().unwrap(), Encoding::Gzip).unwrap(), text);
        assert_eq!(unpack(&snap::raw::Encoder::new().compress_vec(&text).unwrap(), Encoding::Snappy).unwrap(), text);
        // Five bytes that promise four gigabytes.
        assert!(matches!(unpack(&[0xff, 0xff, 0xff, 0xff, 0x0f], Encoding::Snappy), Err(IngestError::TooLarge(_))));
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        bomb.write_all(&vec![0; BODY_BYTES + 1]).unwrap();
        assert!(matches!(unpack(&bomb.finish().unwrap(), Encoding::Gzip), Err(IngestError::TooLarge(_))));
        for encoding in [Encoding::Gzip, Encoding::Snappy] {
            assert!(matches!(unpack(b"nonsense", encoding), Err(IngestError::Malformed(_))));
        }
        assert_eq!((Encoding::of("GZIP"), Encoding::of("br")), (Some(Encoding::Gzip), None));
    }
}
