//! StatsD over UDP: lines `NAME:VALUE|TYPE|@RATE|#TAG:VALUE,...`, with the tags of DogStatsD.
//! <https://github.com/statsd/statsd/blob/master/docs/metric_types.md>
//!
//! | Line | Becomes |
//! |---|---|
//! | `c` | `NAME_total`, which grows from the start of this process |
//! | `g` | `NAME`; with a sign it is added to |
//! | `ms` | `NAME_seconds`: a histogram with `_bucket`, `_sum` and `_count` |
//! | `h`, `d` | `NAME`: a histogram in the sender's unit |
//! | `s` | `NAME`: how many different values there were since the last rows |
//!
//! A datagram that is lost on the way is lost: that is what StatsD is.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewatch_model::ports::Clock;
use tidewatch_model::{Span, Timestamp};

use crate::histogram::Exponential;
use crate::remote_write::classic;
use crate::series::{Gathering, Point, Series, Times, size_of};

/// Names with different tags; what is new beyond them is refused.
const SERIES: usize = 100_000;
/// Bytes of their names and tags, and of those of one of them.
const KEY_BYTES: usize = 32 << 20;
const LONGEST_KEY: usize = 1 << 10;
/// Different values that all sets together count between two rows.
const MEMBERS: usize = 1_000_000;
/// After so long without a line a series ends.
const IDLE: Span = Span::hours(1);
/// Buckets of a histogram that are kept: of `2^(1/4)` each they span 2^64.
const SCALE: i32 = 2;

type Labels = BTreeMap<String, String>;

/// What was counted of one name and its tags.
#[derive(Debug)]
enum Kept {
    Counter(f64),
    Gauge(f64),
    Histogram { buckets: BTreeMap<i64, f64>, at_most_zero: f64, sum: f64, count: f64 },
    Set(HashSet<u64>),
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub struct Statsd {
    kept: BTreeMap<(String, Labels), (Kept, Timestamp)>,
    key_bytes: usize,
    members: usize,
}

/// One line in its parts.
struct Line<'a> {
    name: &'a str,
    values: &'a str,
    kind: &'a str,
    rate: f64,
    labels: Labels,
}

/// A word with letters, digits and underscores alone.
fn word(text: &str) -> String {
    let good = |letter: char| letter.is_ascii_alphanumeric() || letter == ':';
    let plain: String = text.chars().map(|letter| if good(letter) { letter } else { '_' }).collect();
    if plain.starts_with(|first: char| first.is_ascii_digit()) { format!("_{plain}") } else { plain }
}

fn parse(text: &str) -> Result<Line<'_>, String> {
    let expected = || format!("'{}': expected NAME:VALUE|TYPE", text.escape_debug());
    let mut parts = text.split('|');
    let (name, values) = parts.next().and_then(|head| head.split_once(':')).ok_or_else(expected)?;
    let kind = parts.next().ok_or_else(expected)?;
    if name.is_empty() || values.is_empty() {
        return Err(expected());
    }
    let (mut rate, mut labels) = (1.0, Labels::new());
    for part in parts {
        if let Some(text) = part.strip_prefix('@') {
            let read: Option<f64> = text.parse().ok().filter(|rate| *rate >= 1e-6 && *rate <= 1.0);
            rate = read.ok_or_else(|| format!("'{text}': expected a rate from 0.000001 to 1"))?;
        } else if let Some(tags) = part.strip_prefix('#') {
            for tag in tags.split(',').filter(|tag| !tag.is_empty()) {
                let (name, value) = tag.split_once(':').unwrap_or((tag, "true"));
                labels.insert(word(name).replace(':', "_"), value.to_string());
            }
        }
        // A container's id (c:), a time (T): nothing that is kept.
    }
    labels.retain(|_, value| !value.is_empty());
    Ok(Line { name, values, kind, rate, labels })
}

impl Statsd {
    /// Takes the lines of a datagram; returns how many there were, and what is wrong with those that are none.
    pub fn take(&mut self, datagram: &[u8], now: Timestamp) -> (u64, Vec<String>) {
        let text = String::from_utf8_lossy(datagram);
        let (mut lines, mut problems) = (0, Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            lines += 1;
            problems.extend(parse(line.trim()).and_then(|line| self.add(line, now)).err());
        }
        (lines, problems)
    }

    fn add(&mut self, line: Line<'_>, now: Timestamp) -> Result<(), String> {
        let Line { name, values, kind, rate, labels } = line;
        let plain = word(name);
        let (name, empty) = match kind {
            "c" if plain.ends_with("_total") => (plain, Kept::Counter(0.0)),
            "c" => (format!("{plain}_total"), Kept::Counter(0.0)),
            "g" => (plain, Kept::Gauge(0.0)),
            "ms" if plain.ends_with("_seconds") => (plain, histogram()),
            "ms" => (format!("{plain}_seconds"), histogram()),
            "h" | "d" => (plain, histogram()),
            "s" => (plain, Kept::Set(HashSet::new())),
            other => return Err(format!("'{}': expected a type c, g, ms, h, d or s", other.escape_debug())),
        };
        let numbers = match kind {
            "s" => vec![],
            _ => {
                let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
                let read = values.split(':').map(|text| number(text).ok_or_else(|| format!("'{text}' is no number")));
                read.collect::<Result<Vec<f64>, String>>()?
            }
        };
        if let Some(less) = numbers.iter().find(|number| kind == "c" && **number < 0.0) {
            return Err(format!("'{less}': a counter only grows"));
        }
        let size = size_of(&name, &labels);
        if size > LONGEST_KEY {
            return Err(format!("a name with tags of {size} bytes: expected at most {LONGEST_KEY}"));
        }
        let key = (name, labels);
        if !self.kept.contains_key(&key) {
            if self.kept.len() >= SERIES || self.key_bytes + size > KEY_BYTES {
                return Err(format!("'{}': there are too many series already", key.0));
            }
            self.key_bytes += size;
        }
        let (kept, last) = self.kept.entry(key).or_insert((empty, now));
        *last = now;
        match (kept, kind) {
            (Kept::Counter(total), "c") => {
                *total += numbers.iter().sum::<f64>() / rate;
            }
            (Kept::Gauge(value), "g") => {
                for (text, number) in values.split(':').zip(numbers) {
                    *value = if text.starts_with(['+', '-']) { *value + number } else { number };
                }
            }
            (Kept::Histogram { buckets, at_most_zero, sum, count }, "ms" | "h" | "d") => {
                for number in numbers {
                    let number = if kind == "ms" { number / 1_000.0 } else { number };
                    if number > 0.0 {
                        let bucket = (number.log2() * f64::from(SCALE).exp2()).ceil().clamp(-256.0, 256.0);
                        *buckets.entry(bucket as i64).or_default() += 1.0 / rate;
                    } else {
                        *at_most_zero += 1.0 / rate;
                    }
                    *sum += number / rate;
                    *count += 1.0 / rate;
                }
            }
            (Kept::Set(members), "s") => {
                let mut hasher = DefaultHasher::new();
                values.hash(&mut hasher);
                if self.members < MEMBERS && members.insert(hasher.finish()) {
                    self.members += 1;
                }
            }
            (_, kind) => return Err(format!("type {kind}: the name had lines of another type before")),
        }
        Ok(())
    }

    /// Everything as it stands now. A series that had no line for an hour ends.
    pub fn series(&mut self, now: Timestamp) -> Vec<Series> {
        let mut gathered = Vec::new();
        let mut ended = Vec::new();
        self.members = 0;
        for (key, (kept, last)) in &mut self.kept {
            let (name, labels) = key;
            let over = now - *last >= IDLE;
            let mut one = |value: f64| {
                let value = Some(value).filter(|_| !over);
                let points = vec![Point { ts: now, value }];
                gathered.push(Series { name: name.clone(), labels: labels.clone(), points });
            };
            match kept {
                Kept::Counter(value) | Kept::Gauge(value) => one(*value),
                Kept::Set(members) => one(std::mem::take(members).len() as f64),
                Kept::Histogram { buckets, at_most_zero, sum, count } => {
                    let buckets = buckets.iter().map(|(number, count)| (*number, *count)).collect();
                    let exponential = Exponential { scale: SCALE, at_most_zero: *at_most_zero, buckets };
                    let mut gathering = Gathering::new(Times::ANY);
                    let numbers = (Some(*sum), Some(*count).filter(|_| !over));
                    // One histogram is far below what is taken at once.
                    drop(classic(name, labels, now, &exponential.cumulative(), numbers, &mut gathering));
                    gathered.extend(gathering.decoded.series);
                }
            }
            if over {
                ended.push(key.clone());
            }
        }
        for key in ended {
            self.key_bytes -= size_of(&key.0, &key.1);
            self.kept.remove(&key);
        }
        gathered
    }
}

fn histogram() -> Kept {
    Kept::Histogram { buckets: BTreeMap::new(), at_most_zero: 0.0, sum: 0.0, count: 0.0 }
}

/// What a server saw, for those who watch it.
#[derive(Debug, Default)]
pub struct StatsdCounts {
    /// Lines.
    pub lines: AtomicU64,
    /// Lines that are none.
    pub malformed: AtomicU64,
}

/// Listens; ends when it is dropped, and hands over what it has then.
#[derive(Debug)]
pub struct StatsdServer {
    address: SocketAddr,
    counts: Arc<StatsdCounts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StatsdServer {
    /// Listens on an address, and hands everything to `sink` at each multiple of `interval`. What of a datagram is no line goes to
    /// `complain`: the first reason, how many there are, and whether it is the first of this interval.
    ///
    /// # Errors
    /// The address can't be had.
    pub fn start(
        address: SocketAddr,
        interval: Span,
        clock: Arc<dyn Clock>,
        mut sink: impl FnMut(Vec<Series>) + Send + 'static,
        mut complain: impl FnMut(&str, u64, bool) + Send + 'static,
    ) -> io::Result<StatsdServer> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let address = socket.local_addr()?;
        let (counts, stop) = (Arc::<StatsdCounts>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (counts.clone(), stop.clone());
        let work = move || {
            let mut statsd = Statsd::default();
            let mut due = clock.now().floor(interval) + interval;
            let mut buffer = vec![0; 1 << 16];
            let mut complained = false;
            while !stopped.load(Ordering::SeqCst) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let (lines, problems) = statsd.take(&buffer[..length], clock.now());
                    counted.lines.fetch_add(lines, Ordering::Relaxed);
                    counted.malformed.fetch_add(problems.len() as u64, Ordering::Relaxed);
                    if let Some(problem) = problems.first() {
                        complain(problem, problems.len() as u64, !complained);
                        complained = true;
                    }
                }
                let now = clock.now();
                // A clock that was put back must not make it wait.
                if now >= due || now < due - interval {
                    due = now.floor(interval) + interval;
                    complained = false;
                    sink(statsd.series(now));
                }
            }
            sink(statsd.series(clock.now()));
        };
        let thread = std::thread::Builder::new().name("statsd".to_string()).spawn(work)?;
        Ok(StatsdServer { address, counts, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw so far.
    pub fn counts(&self) -> Arc<StatsdCounts> {
        self.counts.clone()
    }
}

impl Drop for StatsdServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use tidewatch_model::time::SystemClock;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn shown(series: &[Series]) -> Vec<String> {
        let of = |series: &Series| {
            let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}{{{}}} {:?}", series.name, labels.join(","), series.points[0].value)
        };
        series.iter().map(of).collect()
    }

    #[test]
    fn lines_are_counted_as_their_type_says() {
        let mut statsd = Statsd::default();
        let lines = b"api.requests:1|c|@0.1|#code:200,canary\napi.requests:2|c|#canary,code:200\nqueue:5|g\nqueue:-2|g\nusers:ann|s\nusers:bob|s\nusers:ann|s\n";
        assert_eq!(statsd.take(lines, NOW), (7, vec![]));
        statsd.take(b"render:250:500|ms\nrender:0|ms", NOW);
        let series = shown(&statsd.series(NOW));
        assert_eq!(series[0], "api_requests_total{canary=true,code=200} Some(12.0)");
        assert_eq!(series[1], "queue{} Some(3.0)");
        let bucket = |le: &str| series.iter().find(|text| text.contains(&format!("le={le}}}"))).unwrap().as_str();
        assert_eq!(bucket("0.25"), "render_seconds_bucket{le=0.25} Some(2.0)");
        assert_eq!(bucket("0.5"), "render_seconds_bucket{le=0.5} Some(3.0)");
        assert_eq!(bucket("+Inf"), "render_seconds_bucket{le=+Inf} Some(3.0)");
        assert!(series.contains(&"render_seconds_sum{} Some(0.75)".to_string()), "{series:?}");
        assert_eq!(series.last().unwrap(), "users{} Some(2.0)");
        // Counters go on, sets begin anew.
        statsd.take(b"api.requests:1|c|#code:200,canary", NOW);
        let series = shown(&statsd.series(NOW + Span::seconds(10)));
        assert_eq!(series[0], "api_requests_total{canary=true,code=200} Some(13.0)");
        assert_eq!(series.last().unwrap(), "users{} Some(0.0)");
        // What is silent for an hour ends, and says so.
        let ended = shown(&statsd.series(NOW + Span::hours(1)));
        assert_eq!(ended[0], "api_requests_total{canary=true,code=200} None");
        assert_eq!(statsd.series(NOW + Span::hours(1)), []);
    }

    #[test]
    fn lines_that_are_none_are_told() {
        let mut statsd = Statsd::default();
        statsd.take(b"a:1|g", NOW);
        for (line, problem) in [
            ("nonsense", "'nonsense': expected NAME:VALUE|TYPE"),
            ("a:1", "'a:1': expected NAME:VALUE|TYPE"),
            (":1|c", "':1|c': expected NAME:VALUE|TYPE"),
            ("a:x|c", "'x' is no number"),
            ("a:inf|g", "'inf' is no number"),
            ("a:1|q", "'q': expected a type c, g, ms, h, d or s"),
            ("a:1|c|@2", "'2': expected a rate from 0.000001 to 1"),
            ("a:1|s", "type s: the name had lines of another type before"),
            ("b:-1|c", "'-1': a counter only grows"),
        ] {
            assert_eq!(statsd.take(line.as_bytes(), NOW), (1, vec![problem.to_string()]), "{line}");
        }
        assert_eq!(statsd.take(b"\xff\xfe:1|c\nok:1|c", NOW), (2, vec![]), "names may be anything, and become words");
    }

    #[test]
    fn datagrams_are_taken_and_handed_over_at_the_end() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let server = StatsdServer::start(
            "127.0.0.1:0".parse().unwrap(),
            Span::hours(24),
            Arc::new(SystemClock),
            move |series| sink.lock().unwrap().extend(series),
            |_, _, _| {},
        )
        .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let counts = server.counts();
        // A datagram may be lost, here too: it is sent until one came.
        while counts.lines.load(Ordering::SeqCst) == 0 {
            socket.send_to(b"a:1|c\nbad", server.address()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(server);
        assert_eq!(seen.lock().unwrap()[0].name, "a_total");
        assert!(counts.malformed.load(Ordering::SeqCst) > 0);
    }
}
