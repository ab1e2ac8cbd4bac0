//! The lines of one file on their way to entries. Those of containers come out of envelopes, of which several may hold one line, and each of
//! a container's streams goes on by itself.

use serde::{Deserialize, Serialize};
use tidewatch_model::Timestamp;

use super::container::{Container, STREAMS, Stream};
use super::join::{Entry, Join, Joiner};
use super::lines::{Line, Lines, Raw};
use super::tail::OddLines;

/// A place in what a stream wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// Where the line of the file begins that it is in.
    pub from: u64,
    /// The same and as many bytes as come before it in the envelope.
    pub start: u64,
}

impl Spot {
    /// At the beginning of a line.
    pub fn at(place: u64) -> Spot {
        Spot { from: place, start: place }
    }
}

/// A place in each stream, by [`Stream`].
pub type Spots = [Spot; STREAMS.len()];

/// The lines of a file that are under way.
#[derive(Debug)]
pub struct Lanes {
    container: Option<Container>,
    lanes: [Lane; STREAMS.len()],
}

/// What one stream wrote.
#[derive(Debug, Default)]
struct Lane {
    /// Within envelopes: what is no whole line yet, by places in what the stream wrote.
    text: Lines,
    /// The envelope in which that begins.
    origin: Envelope,
    joiner: Joiner,
    /// All before was given in an earlier start.
    after: Spot,
}

/// Where the text of an envelope is.
#[derive(Debug, Clone, Copy, Default)]
struct Envelope {
    /// In what the stream wrote since the start.
    begin: u64,
    /// In the file.
    spot: Spot,
    ts: Option<Timestamp>,
}

impl Lanes {
    /// Of a file in which all before these spots was given.
    pub fn new(container: Option<Container>, after: Spots) -> Lanes {
        let lane =
            |stream: Stream| Lane { joiner: Joiner::of(stream), after: after[stream as usize], ..Lane::default() };
        Lanes { container, lanes: STREAMS.map(lane) }
    }

    /// What the lines are wrapped in.
    pub fn container(&self) -> Option<Container> {
        self.container
    }

    /// Takes the next line of the file, and gives what is complete.
    pub fn push(&mut self, join: &Join, raw: Raw, now: Timestamp, odd: &mut OddLines, entries: &mut Vec<Entry>) {
        let Some(container) = self.container else {
            return self.lanes[Stream::Bare as usize].join(join, raw.line(), now, odd, entries);
        };
        let inner = container.open(&raw.bytes);
        let (stream, ts, text, is_part) = match &inner {
            Some(inner) => (inner.stream, Some(inner.ts), inner.text.as_ref(), inner.is_part),
            None => (Stream::Bare, None, raw.bytes.as_slice(), false),
        };
        let lane = &mut self.lanes[stream as usize];
        if raw.start < lane.after.from {
            return;
        }
        odd.bare += usize::from(inner.is_none() && !text.is_empty());
        for line in lane.feed(raw.start, ts, text, is_part, now) {
            lane.join(join, line, now, odd, entries);
        }
    }

    /// What has waited long enough for what may follow.
    pub fn overdue(&mut self, join: &Join, now: Timestamp, odd: &mut OddLines, entries: &mut Vec<Entry>) {
        for lane in &mut self.lanes {
            if let Some(raw) = lane.text.overdue(now) {
                let line = lane.line(raw, lane.origin);
                lane.join(join, line, now, odd, entries);
            }
            entries.extend(lane.joiner.overdue(now));
        }
    }

    /// All that is under way.
    pub fn flush(&mut self, join: &Join, now: Timestamp, odd: &mut OddLines, entries: &mut Vec<Entry>) {
        for lane in &mut self.lanes {
            if let Some(raw) = lane.text.flush() {
                let line = lane.line(raw, lane.origin);
                lane.join(join, line, now, odd, entries);
            }
            entries.extend(lane.joiner.flush());
        }
    }

    /// What was given, when lines were taken up to this place: all before the spots. A file without envelopes has one for all.
    pub fn spots(&self, next: u64) -> Spots {
        STREAMS.map(|stream| {
            let stream = self.container.map_or(Stream::Bare, |_| stream);
            self.lanes[stream as usize].spot(next)
        })
    }
}

impl Lane {
    /// Takes the text of an envelope that begins at this place of the file, and gives whole lines.
    fn feed(&mut self, from: u64, ts: Option<Timestamp>, text: &[u8], is_part: bool, now: Timestamp) -> Vec<Line> {
        // What was given of it in an earlier start.
        let skip = if from == self.after.from { self.after.start - from } else { 0 };
        let begin = self.text.position();
        let here = Envelope { begin, spot: Spot { from, start: from + skip }, ts };
        let mut found = Vec::new();
        self.text.feed(text.get(skip as usize..).unwrap_or_default(), now, &mut found);
        if !is_part {
            self.text.feed(b"\n", now, &mut found);
        }
        let origin = |place: u64| if place < begin { self.origin } else { here };
        let lines = found.into_iter().map(|raw| (origin(raw.start), raw)).map(|(origin, raw)| self.line(raw, origin));
        let lines = lines.collect();
        self.origin = origin(self.text.start());
        lines
    }

    /// A line by its place in the file.
    fn line(&self, raw: Raw, origin: Envelope) -> Line {
        let Spot { from, start } = origin.spot_of(raw.start);
        Line { start, from, ts: origin.ts, ..raw.line() }
    }

    fn join(&mut self, join: &Join, line: Line, now: Timestamp, odd: &mut OddLines, entries: &mut Vec<Entry>) {
        odd.cut += usize::from(line.cut);
        odd.replaced += usize::from(line.replaced);
        self.joiner.push(join, line, now, entries);
    }

    fn spot(&self, next: u64) -> Spot {
        let under_way = self.text.position() > self.text.start();
        let under_way = under_way.then(|| self.origin.spot_of(self.text.start()));
        let behind = if next > self.after.from { Spot::at(next) } else { self.after };
        self.joiner.pending().or(under_way).unwrap_or(behind)
    }
}

impl Envelope {
    /// A place of the stream in the file.
    fn spot_of(&self, place: u64) -> Spot {
        Spot { start: self.spot.start + (place - self.begin), ..self.spot }
    }
}
