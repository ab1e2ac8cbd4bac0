//! Scrapes that come in pieces. Who sends on what was scraped elsewhere cuts it into requests, by size and by series; a sum of a part of its
//! series would jump, and look like a restart.

use std::collections::BTreeMap;

use tidewatch_model::{Span, Timestamp};

use super::TypedSample;

/// How long nothing more has to come of a scrape until it is whole.
const WAIT: Span = Span::seconds(15);
/// Samples that wait. Beyond, the oldest scrapes are taken for whole.
const SAMPLES: usize = 200_000;
/// How far ahead of our clock a sample may be: whatever is older than one that was taken comes too late.
const AHEAD: Span = Span::minutes(5);
/// Targets of which it is known how far they are.
const TARGETS: usize = 20_000;

/// Job and instance.
type Target = (String, String);

/// Series and values of one scrape; what is sent twice is there once.
#[derive(Debug)]
struct Scrape {
    values: BTreeMap<(String, Vec<(String, String)>), f64>,
    last: Timestamp,
}

/// Scrapes that wait for the rest of them.
#[derive(Debug, Default)]
pub struct Gather {
    scrapes: BTreeMap<(Timestamp, Target), Scrape>,
    samples: usize,
    /// The newest scrape of each target that was taken for whole.
    done: BTreeMap<Target, Timestamp>,
}

/// A whole scrape's samples.
#[derive(Debug)]
pub struct Whole {
    ts: Timestamp,
    values: BTreeMap<(String, Vec<(String, String)>), f64>,
}

impl Whole {
    /// As samples.
    pub fn samples(&self) -> impl Iterator<Item = TypedSample<'_>> {
        self.values.iter().map(|((name, labels), value)| TypedSample {
            ts: self.ts,
            name,
            labels: labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            value: *value,
        })
    }
}

impl Gather {
    /// Takes a sample. One of a scrape that was taken for whole came too late, and counts for nothing, as one of a clock that is far ahead.
    pub fn add(&mut self, now: Timestamp, sample: &TypedSample<'_>) {
        if sample.ts - now > AHEAD {
            return;
        }
        let text = |label: &str| sample.label(label).unwrap_or_default().to_string();
        let target = (text("job"), text("instance"));
        if self.done.get(&target).is_some_and(|done| sample.ts <= *done) {
            return;
        }
        let scrape = self.scrapes.entry((sample.ts, target));
        let scrape = scrape.or_insert_with(|| Scrape { values: BTreeMap::new(), last: now });
        scrape.last = now;
        let mut labels: Vec<(String, String)> =
            sample.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        labels.sort();
        let before = scrape.values.insert((sample.name.to_string(), labels), sample.value);
        self.samples += usize::from(before.is_none());
    }

    /// The scrapes that are whole, by time.
    pub fn whole(&mut self, now: Timestamp) -> Vec<Whole> {
        let mut keys = Vec::new();
        let mut left = self.samples;
        for (key, scrape) in &self.scrapes {
            if now - scrape.last >= WAIT || left > SAMPLES {
                left -= scrape.values.len();
                keys.push(key.clone());
            }
        }
        self.samples = left;
        let mut whole = Vec::new();
        for key in keys {
            let Some(scrape) = self.scrapes.remove(&key) else { continue };
            let (ts, target) = key;
            whole.push(Whole { ts, values: scrape.values });
            let done = self.done.entry(target).or_insert(ts);
            *done = ts.max(*done);
        }
        if self.done.len() > TARGETS {
            let newest = self.done.values().max().copied().unwrap_or(Timestamp::MIN);
            self.done.retain(|_, done| newest - *done < Span::hours(1));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TS: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn sample(name: &'static str, instance: &'static str, seconds: i64) -> TypedSample<'static> {
        let labels = vec![("job", "chat"), ("instance", instance)];
        TypedSample { ts: TS + Span::seconds(seconds), name, labels, value: 1.0 }
    }

    /// Names and seconds of what is whole.
    fn whole(gather: &mut Gather, seconds: i64) -> Vec<(String, i64)> {
        let whole = gather.whole(TS + Span::seconds(seconds));
        let samples = whole.iter().flat_map(Whole::samples);
        samples.map(|sample| (sample.name.to_string(), (sample.ts - TS).0 / 1_000_000)).collect()
    }

    #[test]
    fn a_scrape_is_whole_when_nothing_more_comes_of_it() {
        let mut gather = Gather::default();
        gather.add(TS, &sample("a", "one", 0));
        gather.add(TS + Span::seconds(3), &sample("b", "one", 0));
        gather.add(TS + Span::seconds(3), &sample("a", "one", 0));
        assert_eq!(whole(&mut gather, 17), []);
        gather.add(TS + Span::seconds(7), &sample("a", "two", 5));
        assert_eq!(whole(&mut gather, 18), [("a".to_string(), 0), ("b".to_string(), 0)], "what is sent twice is one");
        gather.add(TS + Span::seconds(19), &sample("c", "one", 0));
        gather.add(TS + Span::seconds(19), &sample("d", "one", 600));
        assert_eq!(whole(&mut gather, 60), [("a".to_string(), 5)], "what comes too late is none");
        assert_eq!((gather.samples, gather.scrapes.len()), (0, 0));
    }

    #[test]
    fn no_more_waits_than_may() {
        let mut gather = Gather::default();
        let names: Vec<String> = (0..=SAMPLES / 2).map(|number| format!("m{number}")).collect();
        for seconds in [0, 10] {
            for name in &names {
                let ts = TS + Span::seconds(seconds);
                gather.add(TS, &TypedSample { ts, name, labels: vec![("job", "chat")], value: 1.0 });
            }
        }
        let whole = gather.whole(TS);
        assert_eq!((whole.len(), whole[0].ts, whole[0].values.len()), (1, TS, names.len()));
        assert_eq!(gather.samples, names.len());
    }
}
