//! Bytes of a file as lines: whole ones, bounded, and as text whatever the bytes are.

use tidewatch_model::{Span, Timestamp};

/// Bytes of a line that are kept; what is beyond is left out, and counted.
pub const LINE_BYTES: usize = 64 << 10;
/// The same of a line with an envelope around it: the 16 KiB that a container's runtime writes at once, each byte of them written as six.
const WRAPPED_BYTES: usize = 128 << 10;
/// How long a line waits for its end; then it is taken as it is.
pub const PARTIAL_WAIT: Span = Span::seconds(10);

/// The bytes of one line, as they stand in the file but for the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Where it begins.
    pub start: u64,
    /// They may be some more than are kept.
    pub bytes: Vec<u8>,
    /// It ended with a carriage return.
    pub transient: bool,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it begins in the file.
    pub start: u64,
    /// From where on the file is read to have it again; before `start` only within an envelope.
    pub from: u64,
    /// When it was written, as its envelope says.
    pub ts: Option<Timestamp>,
    /// Its text, without its end, colours and bytes that are no UTF-8.
    pub text: String,
    /// It ended with a carriage return: on a terminal the next one is written over it. Progress bars do so.
    pub transient: bool,
    /// It was longer than a line may be.
    pub cut: bool,
    /// It was not UTF-8.
    pub replaced: bool,
}

/// The bytes of one file that are no whole line yet.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where the line under way begins.
    start: u64,
    /// How many bytes of it were read, kept or not.
    length: u64,
    /// The last byte was a carriage return: what it ends depends on the next.
    carriage: bool,
    /// The rest of a line whose beginning was not read.
    skip: bool,
    /// Lines have envelopes: carriage returns are within them.
    wrapped: bool,
    since: Option<Timestamp>,
}

impl Lines {
    /// From this place of a file on; with `skip` it is in the middle of a line, which is nobody's.
    pub fn at(start: u64, skip: bool) -> Lines {
        Lines { start, skip, ..Lines::default() }
    }

    /// The same of lines with envelopes: they end with a newline only, and may be longer.
    pub fn wrapped(self) -> Lines {
        Lines { wrapped: true, ..self }
    }

    /// How far was read.
    pub fn position(&self) -> u64 {
        self.start + self.length
    }

    /// Where the line under way begins.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Takes what follows.
    pub fn feed(&mut self, mut bytes: &[u8], now: Timestamp, lines: &mut Vec<Raw>) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.carriage) {
                if *first == b'\n' {
                    self.length += 1;
                    lines.extend(self.finish(false));
                    bytes = &bytes[1..];
                    continue;
                }
                lines.extend(self.finish(true));
            }
            let end = bytes.iter().position(|byte| *byte == b'\n' || (*byte == b'\r' && !self.wrapped));
            self.keep(&bytes[..end.unwrap_or(bytes.len())], now);
            let Some(end) = end else { break };
            self.length += 1;
            match bytes[end] {
                b'\n' => lines.extend(self.finish(false)),
                _ => self.carriage = true,
            }
            bytes = &bytes[end + 1..];
        }
    }

    /// The line under way as it is, when it has waited too long for its end. What is in half an envelope nobody knows: it waits on.
    pub fn overdue(&mut self, now: Timestamp) -> Option<Raw> {
        self.since.filter(|_| !self.wrapped).filter(|since| now - *since >= PARTIAL_WAIT).and_then(|_| self.flush())
    }

    /// The line under way as it is, if there is one.
    pub fn flush(&mut self) -> Option<Raw> {
        let transient = std::mem::take(&mut self.carriage);
        if self.length == 0 { None } else { self.finish(transient) }
    }

    fn keep(&mut self, bytes: &[u8], now: Timestamp) {
        if !bytes.is_empty() {
            self.since.get_or_insert(now);
        }
        self.length += bytes.len() as u64;
        // A program that goes on writing where it was in a file that was emptied leaves zeros before.
        let bytes = match self.bytes.is_empty() {
            true => &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..],
            false => bytes,
        };
        // One more than is kept says that there was more.
        let most = if self.wrapped { WRAPPED_BYTES } else { LINE_BYTES };
        let room = (most + 1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self, transient: bool) -> Option<Raw> {
        let start = self.start;
        let bytes = std::mem::take(&mut self.bytes);
        (self.start, self.length, self.since) = (self.position(), 0, None);
        if std::mem::take(&mut self.skip) { None } else { Some(Raw { start, bytes, transient }) }
    }
}

impl Raw {
    /// As text.
    pub fn line(self) -> Line {
        let Raw { start, mut bytes, transient } = self;
        let cut = bytes.len() > LINE_BYTES;
        if cut {
            // Not within a character.
            let at = (LINE_BYTES - 3..=LINE_BYTES).rev().find(|at| bytes[*at] & 0xC0 != 0x80);
            bytes.truncate(at.unwrap_or(LINE_BYTES));
        }
        let (text, replaced) = match String::from_utf8(bytes) {
            Ok(text) => (text, false),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
        };
        Line { start, from: start, ts: None, text: without_colours(text), transient, cut, replaced }
    }
}

/// The text without the sequences that colour a terminal (ECMA-48: `ESC [`, parameters, a letter).
fn without_colours(text: String) -> String {
    if !text.contains('\u{1b}') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        let sequence = &rest[at + 2..];
        let end = sequence.find(|letter: char| ('@'..='~').contains(&letter));
        rest = end.map_or("", |end| &sequence[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn lines(lines: &mut Lines, chunks: &[&[u8]]) -> Vec<Line> {
        let mut found = Vec::new();
        chunks.iter().for_each(|chunk| lines.feed(chunk, NOW, &mut found));
        found.into_iter().map(Raw::line).collect()
    }

    fn shown(found: &[Line]) -> Vec<(u64, &str, bool)> {
        found.iter().map(|line| (line.start, line.text.as_str(), line.transient)).collect()
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let bytes = b"a\r\nbar 1\rbar 2\r\rc\n\nd";
        let mut under_way = Lines::default();
        let whole = lines(&mut under_way, &[bytes]);
        let expected = [
            (0, "a", false),
            (3, "bar 1", true),
            (9, "bar 2", true),
            (15, "", true),
            (16, "c", false),
            (18, "", false),
        ];
        assert_eq!((shown(&whole).as_slice(), under_way.start()), (expected.as_slice(), 19));
        for size in 1..bytes.len() {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(lines(&mut Lines::default(), &chunks), whole, "{size}");
        }
    }

    #[test]
    fn a_partial_line_waits_for_its_end_but_not_for_ever() {
        let mut under_way = Lines::at(100, false);
        assert!(lines(&mut under_way, &[b"half"]).is_empty());
        assert_eq!(under_way.overdue(NOW + Span::seconds(9)), None);
        let line = under_way.overdue(NOW + PARTIAL_WAIT).map(Raw::line);
        assert_eq!(shown(line.as_slice()), [(100, "half", false)]);
        assert_eq!((under_way.flush(), under_way.position()), (None, 104));
        let mut skipping = Lines::at(5, true);
        assert_eq!(shown(&lines(&mut skipping, &[b"rest\nnew\n"])), [(10, "new", false)]);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_cut_replaced_and_told() {
        let long = ["é".repeat(LINE_BYTES), "\nshort\n".to_string()].concat();
        let found = lines(&mut Lines::default(), &[long.as_bytes()]);
        assert_eq!((found[0].text.len(), found[0].cut, found[1].start), (LINE_BYTES, true, 2 * LINE_BYTES as u64 + 1));
        assert_eq!((found[1].text.as_str(), found[1].cut), ("short", false));
        let odd = ["x".to_string(), "é".repeat(LINE_BYTES), "\n".to_string()].concat();
        assert_eq!(lines(&mut Lines::default(), &[odd.as_bytes()])[0].text.len(), LINE_BYTES - 1);
        let found = lines(&mut Lines::default(), &[b"\0\0\0a\xFFb\x1b[1;31mred\x1b[0m\n"]);
        assert_eq!((found[0].text.as_str(), found[0].replaced), ("a\u{FFFD}bred", true));
    }
}
