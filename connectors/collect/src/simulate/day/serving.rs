//! Inference services of a day: replicas that come and go, traffic that follows the clock, histograms as vLLM has them.

use tidewatch_model::{Span, Timestamp};

use super::happenings::{Kind, Marks};
use super::places::{Dice, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// What is known of a service.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    model: &'static str,
    /// Requests a second at noon, for each replica that it then has.
    peak: f64,
    /// Mean seconds of a request, to the first token, and between two tokens; zero is none.
    seconds: [f64; 3],
    /// The share of its replicas that stay at night.
    night: f64,
}

/// The services.
pub const SERVICES: [Service; 3] = [
    Service { name: "chat", model: "chat-70b", peak: 1.2, seconds: [8.0, 0.35, 0.03], night: 0.4 },
    Service { name: "code", model: "code-34b", peak: 1.6, seconds: [3.5, 0.2, 0.018], night: 0.6 },
    Service { name: "embed", model: "embed-1b", peak: 20.0, seconds: [0.09, 0.05, 0.0], night: 1.0 },
];

const METRICS: [&str; 3] =
    ["vllm:e2e_request_latency_seconds", "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"];
/// Upper bounds of the buckets.
const BOUNDS: [&[f64]; 3] = [
    &[
        0.3,
        0.5,
        0.8,
        1.0,
        1.5,
        2.0,
        2.5,
        5.0,
        10.0,
        15.0,
        20.0,
        30.0,
        40.0,
        50.0,
        60.0,
        120.0,
        240.0,
        480.0,
        f64::INFINITY,
    ],
    &[0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, f64::INFINITY],
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, f64::INFINITY],
];
/// How wide latencies are, as the deviation of their logarithm.
const WIDTHS: [f64; 3] = [0.6, 0.7, 0.45];

/// One replica.
#[derive(Debug)]
struct Replica {
    service: usize,
    host: usize,
    name: String,
    began: i64,
    up: bool,
    running: f64,
    waiting: f64,
    requests: f64,
    errors: f64,
    tokens: f64,
    preemptions: i64,
    counts: [Vec<f64>; 3],
}

/// All replicas.
#[derive(Debug)]
pub struct Serving {
    replicas: Vec<Replica>,
    dice: Dice,
    start: Timestamp,
    generation: i64,
    /// Seconds of the day at which the simulation begins.
    clock: i64,
}

fn counts() -> [Vec<f64>; 3] {
    BOUNDS.map(|bounds| vec![0.0; bounds.len()])
}

/// The share of a log-normal distribution that lies below `value` (Abramowitz and Stegun 7.1.26 for the error function).
fn below(value: f64, median: f64, width: f64) -> f64 {
    if value.is_infinite() {
        return 1.0;
    }
    let x = (value / median).ln() / width / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = (1.0 - series * (-x * x).exp()) * x.signum();
    0.5 * (1.0 + erf)
}

impl Serving {
    /// Replicas at midnight.
    pub fn new(places: &Places, seed: u64, start: Timestamp) -> Serving {
        let hosts = places.with(Role::Serving);
        let mut replicas = Vec::new();
        for (at, host) in hosts.clone().enumerate() {
            let service = match at * 10 / hosts.len().max(1) {
                0..5 => 0,
                5..8 => 1,
                _ => 2,
            };
            for _ in 0..if service == 0 { 2 } else { 1 } {
                let name = format!("{}-{:05x}-{}", SERVICES[service].name, 0x5a1c0, replicas.len());
                let (requests, counts) = (0.0, counts());
                replicas.push(Replica {
                    service,
                    host,
                    name,
                    began: -90_000,
                    up: true,
                    running: 0.0,
                    waiting: 0.0,
                    requests,
                    errors: 0.0,
                    tokens: 0.0,
                    preemptions: 0,
                    counts,
                });
            }
        }
        let clock = (start.0 / 1_000_000).rem_euclid(86_400);
        Serving { replicas, dice: Dice::new(seed, 6), start, generation: 0, clock }
    }

    /// How busy the service is at a time, from 0.1 at four in the morning to 1 at four in the afternoon.
    fn traffic(&self, now: i64) -> f64 {
        let phase = (self.clock + now - 57_600) as f64 / 86_400.0 * std::f64::consts::TAU;
        0.55 + 0.45 * phase.cos()
    }

    /// How busy the replicas of each machine are.
    pub fn load(&self, hosts: usize) -> Vec<f64> {
        let mut load = vec![0.0; hosts];
        for replica in self.replicas.iter().filter(|replica| replica.up) {
            load[replica.host] = (replica.running / 24.0).clamp(0.02, 0.95);
        }
        load
    }

    /// Names of a machine's replicas, and how busy each is.
    pub fn pods(&self, host: usize) -> impl Iterator<Item = (&str, f64)> {
        let here = self.replicas.iter().filter(move |replica| replica.up && replica.host == host);
        here.map(|replica| (replica.name.as_str(), (replica.running / 24.0).clamp(0.0, 1.0)))
    }

    /// The rows of `serve` and `serve_histogram`, every ten seconds.
    pub fn rows(
        &mut self,
        now: i64,
        places: &Places,
        marks: &Marks,
        deployed: &[(usize, i64)],
    ) -> Result<(Rows, Rows), RowsError> {
        let (mut rows, mut buckets) = (Rows::of("serve")?, Rows::of("serve_histogram")?);
        let at = self.start + Span::seconds(now);
        for (service, about) in SERVICES.iter().enumerate() {
            let traffic = self.traffic(now);
            let bits = marks.services.get(service).copied().unwrap_or(0);
            let has = |kind: Kind| bits & kind.bit() != 0;
            let all = self.replicas.iter().filter(|replica| replica.service == service).count();
            let wanted = ((all as f64 * (about.night + (1.0 - about.night) * traffic)).ceil() as usize).min(all);
            let since = deployed.iter().find(|(of, _)| *of == service).map(|(_, from)| now - from);
            self.scale(service, wanted, now, since, marks);
            let up = self.replicas.iter().filter(|replica| replica.service == service && replica.up).count();
            // All requests of ten seconds, over those that take them.
            let surge = if has(Kind::Burst) { 1.35 } else { 1.0 };
            let asked = 10.0 * about.peak * all as f64 * traffic * surge * (1.0 + 0.08 * self.dice.noise());
            let failing = match () {
                () if has(Kind::ServeErrors) => 0.6,
                () if has(Kind::ErrorBlip) => 0.03,
                () => 0.001,
            };
            for replica in self.replicas.iter_mut().filter(|replica| replica.service == service && replica.up) {
                let warm = now - replica.began > 60;
                let share = asked / up.max(1) as f64 * (1.0 + 0.1 * self.dice.noise());
                // Eight tenths of what a replica can carry at noon: what is more waits.
                let carried = 10.0 * about.peak * 1.25;
                let came = share + replica.waiting;
                let done = came.min(carried).floor();
                replica.waiting = (came - done).max(0.0);
                let load = (done / carried).clamp(0.0, 1.0);
                replica.running = 24.0 * load * (1.0 + 0.15 * self.dice.noise());
                let full = has(Kind::KvFull);
                replica.preemptions += i64::from(full) * 2;
                let kv = if full { 0.985 } else { 0.2 + 0.6 * load + 0.05 * self.dice.noise() };
                let failed = (done * failing + self.dice.unit()).floor().min(done);
                replica.requests += done;
                replica.errors += failed;
                replica.tokens += done * 350.0;
                // Who comes now waits until those before are done.
                let waits = replica.waiting / (carried / 10.0);
                for metric in 0..3 {
                    let mean = about.seconds[metric] * (1.0 + 0.4 * load) * if warm || metric == 0 { 1.0 } else { 4.0 };
                    let median = mean + if metric == 2 { 0.0 } else { waits * 0.5 };
                    let grown = done * if metric == 2 { 350.0 } else { 1.0 };
                    for (count, bound) in replica.counts[metric].iter_mut().zip(BOUNDS[metric]) {
                        *count += if about.seconds[metric] > 0.0 {
                            grown * below(*bound, median, WIDTHS[metric])
                        } else {
                            0.0
                        };
                    }
                }
                let replica = &*replica;
                let cells: [(&str, Cell); 12] = [
                    ("service", about.name.into()),
                    ("replica", replica.name.as_str().into()),
                    ("host", places.hosts[replica.host].as_str().into()),
                    ("model", about.model.into()),
                    ("requests_running", (replica.running as i64).into()),
                    ("requests_waiting", (replica.waiting as i64).into()),
                    ("kv_cache_ratio", kv.into()),
                    ("preemptions_total", replica.preemptions.into()),
                    ("requests_total", (replica.requests as i64).into()),
                    ("errors_total", (replica.errors as i64).into()),
                    ("prompt_tokens_total", (replica.tokens as i64 * 4).into()),
                    ("generated_tokens_total", (replica.tokens as i64).into()),
                ];
                rows.push(at, cells)?;
                for metric in (0..3).filter(|metric| about.seconds[*metric] > 0.0) {
                    for (count, bound) in replica.counts[metric].iter().zip(BOUNDS[metric]) {
                        let cells: [(&str, Cell); 5] = [
                            ("service", about.name.into()),
                            ("replica", replica.name.as_str().into()),
                            ("metric", METRICS[metric].into()),
                            ("le", (*bound).into()),
                            ("count_total", (*count as i64).into()),
                        ];
                        buckets.push(at, cells)?;
                    }
                }
            }
        }
        Ok((rows, buckets))
    }

    /// Starts and stops replicas, and replaces one every 90 seconds of a deployment.
    fn scale(&mut self, service: usize, wanted: usize, now: i64, since: Option<i64>, marks: &Marks) {
        let mut seen = 0;
        for replica in self.replicas.iter_mut().filter(|replica| replica.service == service) {
            let down = marks.hosts[replica.host] & (Kind::PlannedReboot.bit() | Kind::HostDown.bit()) != 0;
            // Scaling down waits until a whole replica less is wanted.
            let stays = seen < wanted || (replica.up && seen < wanted + 1);
            let replaced = since.is_some_and(|since| since / 90 == seen as i64 && since % 90 < 10);
            seen += 1;
            let up = stays && !down;
            if up && (replaced || !replica.up) {
                self.generation += 1;
                let name = format!("{}-{:05x}-{seen}", SERVICES[service].name, 0x5a1c0 + self.generation);
                *replica = Replica {
                    name,
                    began: now,
                    up,
                    running: 0.0,
                    waiting: 0.0,
                    requests: 0.0,
                    errors: 0.0,
                    tokens: 0.0,
                    preemptions: 0,
                    counts: counts(),
                    ..*replica
                };
            }
            replica.up = up;
        }
    }
}
