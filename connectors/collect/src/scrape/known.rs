//! Which series a target showed at its last scrape, so that it can be said of each that it has ended.
//!
//! Held as one text and 16 bytes a series. A series whose samples carry times of their own is not followed, as Prometheus does not: whoever
//! tells of the past may leave a scrape out.

use std::hash::{DefaultHasher, Hasher};

use super::exposition::Sample;

/// What stands between names and values in the text. A series that has it within is not followed.
const BETWEEN: char = '\0';

/// The series of one target.
#[derive(Debug, Default)]
pub struct Known {
    text: String,
    /// The hash of each, and where its text begins, sorted by hash.
    series: Vec<(u64, u32)>,
}

/// What a scrape changed.
#[derive(Debug, Default, PartialEq)]
pub struct Followed {
    /// Samples without a number of series that have ended.
    pub ended: Vec<Sample>,
    /// Series that are not followed: there was no room.
    pub unseen: usize,
}

impl Known {
    /// Takes the samples of a scrape, of which so many bytes may be held.
    pub fn follow(&mut self, samples: &[Sample], room: usize) -> Followed {
        let mut next = Known::default();
        let mut unseen = 0;
        for sample in samples.iter().filter(|sample| sample.at.is_none() && is_plain(sample)) {
            let begin = next.text.len();
            let size = sample.labels.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
            let size = size + sample.name.len() + 1;
            if next.bytes() + size + size_of::<(u64, u32)>() > room || begin + size > u32::MAX as usize {
                unseen += 1;
                continue;
            }
            next.text += &sample.name;
            for part in sample.labels.iter().flat_map(|(name, value)| [name, value]) {
                next.text.push(BETWEEN);
                next.text += part;
            }
            let mut hasher = DefaultHasher::new();
            hasher.write(&next.text.as_bytes()[begin..]);
            next.text.push('\n');
            next.series.push((hasher.finish(), begin as u32));
        }
        next.text.shrink_to_fit();
        next.series.shrink_to_fit();
        next.series.sort_unstable();
        // What was not followed for want of room is not what has ended.
        let goes_on = |hash: u64| next.series.binary_search_by_key(&hash, |(known, _)| *known).is_ok();
        let ended = if unseen > 0 { vec![] } else { self.ended(|hash| !goes_on(hash)) };
        *self = next;
        Followed { ended, unseen }
    }

    /// Everything has ended.
    pub fn end(&mut self) -> Vec<Sample> {
        let ended = self.ended(|_| true);
        *self = Known::default();
        ended
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.series.len() * size_of::<(u64, u32)>()
    }

    fn ended(&self, is: impl Fn(u64) -> bool) -> Vec<Sample> {
        let ended = self.series.iter().filter(|(hash, _)| is(*hash));
        ended.map(|(_, begin)| self.sample(*begin as usize)).collect()
    }

    fn sample(&self, begin: usize) -> Sample {
        let text = self.text[begin..].split('\n').next().unwrap_or_default();
        let mut parts = text.split(BETWEEN).map(str::to_string);
        let name = parts.next().unwrap_or_default();
        let mut labels = Vec::new();
        while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
            labels.push((label, value));
        }
        Sample { name, labels, value: f64::NAN, at: None }
    }
}

/// Whether nothing in it is what stands between texts.
fn is_plain(sample: &Sample) -> bool {
    let is_plain = |text: &str| !text.contains([BETWEEN, '\n']);
    is_plain(&sample.name) && sample.labels.iter().all(|(name, value)| is_plain(name) && is_plain(value))
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Dialect, parse};
    use super::*;

    fn samples(text: &str) -> Vec<Sample> {
        parse(text, Dialect::Prometheus, 100).unwrap()
    }

    fn ended(known: &mut Known, text: &str) -> Vec<String> {
        let Followed { mut ended, unseen: 0 } = known.follow(&samples(text), 1 << 20) else { panic!("{text}") };
        ended.sort_by_key(|sample| (sample.name.clone(), sample.labels.clone()));
        assert!(ended.iter().all(|sample| sample.value.is_nan()));
        ended.into_iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    #[test]
    fn what_is_no_longer_shown_has_ended_once() {
        let mut known = Known::default();
        assert!(ended(&mut known, "a 1\nb{x=\"1\"} 2\nb{x=\"2\"} 3\n").is_empty());
        assert_eq!(ended(&mut known, "b{x=\"2\"} 3\nc 1\n"), ["a[]", "b[(\"x\", \"1\")]"]);
        assert!(ended(&mut known, "c 1\nb{x=\"2\"} 3\n").is_empty(), "the order says nothing");
        assert_eq!(ended(&mut known, "b{x=\"2\"} NaN\n"), ["c[]"], "what is no number is still shown");
        assert_eq!(known.end().len(), 1);
        assert_eq!((known.end(), known.bytes()), (vec![], 0));
    }

    #[test]
    fn whoever_tells_times_and_odd_letters_are_not_followed() {
        let mut known = Known::default();
        assert!(ended(&mut known, "old 1 1700000000000\nodd{x=\"a\\nb\"} 1\n").is_empty());
        assert!(ended(&mut known, "").is_empty());
    }

    #[test]
    fn without_room_nothing_is_said_to_end() {
        let mut known = Known::default();
        assert!(ended(&mut known, "aaaa 1\nbbbb 1\n").is_empty());
        let followed = known.follow(&samples("cccc 1\nbbbb 1\n"), 30);
        assert_eq!(followed, Followed { ended: vec![], unseen: 1 });
        assert_eq!(known.end().len(), 1);
    }
}
