//! How things stand: one live screen on a terminal, a line now and then otherwise.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tidewatch_model::{Alert, AlertState, Span, Timestamp};

use crate::output::aligned;
use crate::station::Stats;

/// Lines that the screen keeps of what was told.
const RECENT: usize = 12;
/// Alerts that the screen lists.
const LISTED: usize = 10;

/// The newest lines, written by the terminal's notifier and drawn by the screen.
#[derive(Debug, Clone, Default)]
pub struct RecentLines(Arc<Mutex<VecDeque<String>>>);

impl Write for RecentLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.back_mut().filter(|last| !last.ends_with('\n')) {
            Some(last) => last.push_str(&text),
            None => lines.push_back(text),
        }
        while lines.len() > RECENT {
            lines.pop_front();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The screen.
pub struct Screen {
    live: bool,
    recent: RecentLines,
    data: String,
    address: SocketAddr,
    last: Option<(Timestamp, u64)>,
    rows_per_second: f64,
}

impl Screen {
    /// Live on a terminal, lines otherwise.
    pub fn new(live: bool, recent: RecentLines, data: String, address: SocketAddr) -> Self {
        Screen { live, recent, data, address, last: None, rows_per_second: 0.0 }
    }

    /// Draws the live screen.
    pub fn draw(&mut self, stats: &Stats, alerts: &[Alert], now: Timestamp) {
        let rows: u64 = stats.rows.values().sum();
        if let Some((then, before)) = self.last {
            let rate = (rows - before.min(rows)) as f64 / (now - then).as_seconds().max(1e-3);
            self.rows_per_second += (rate - self.rows_per_second) * 0.3;
        }
        self.last = Some((now, rows));
        if !self.live {
            return;
        }
        let mut text =
            format!("tidewatch  {}  data {}  http://{}\n\n", now.floor(Span::seconds(1)), self.data, self.address);
        text += &format!(
            "rows {rows} ({:.0}/s)  evaluations {}  transitions {}\n",
            self.rows_per_second, stats.evaluations, stats.transitions
        );
        text += &format!(
            "lake {} rows committed, {} waiting, {} public  notices {} delivered, {} waiting\n",
            stats.lake_rows,
            stats.lake_waiting_rows,
            stats.public_rows,
            stats.notices.get("delivered").copied().unwrap_or(0),
            stats.notices_waiting
        );
        if let Some(trouble) = &stats.trouble {
            text += &format!("\x1b[1;31m{trouble}\x1b[0m\n");
        }
        text += &format!("\n{}", aligned(&table_rows(stats, now)));
        text += &format!("\n{}\n", alert_summary(alerts));
        for alert in alerts.iter().filter(|alert| alert.state == AlertState::Firing).take(LISTED) {
            let since = alert.fired_at.map(|ts| (now - ts).max(Span::ZERO)).unwrap_or_default();
            let labels: Vec<String> = alert
                .labels
                .iter()
                .filter(|(name, _)| *name != "alertname")
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let stale = if alert.stale_since.is_some() { " (stale)" } else { "" };
            text += &format!(
                "  {:<8} {} {}{stale}  for {}\n",
                alert.severity.to_string(),
                alert.rule,
                labels.join(" "),
                whole_seconds(since)
            );
        }
        text.push('\n');
        for line in self.recent.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text += line;
        }
        // Home, each line cleared to its end, then everything below: no flicker.
        let drawn = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
        let mut out = std::io::stdout().lock();
        drop(out.write_all(drawn.as_bytes()).and_then(|()| out.flush()));
    }

    /// Says in a line how things stand; the live screen shows it anyhow.
    pub fn report(&self, stats: &Stats, alerts: &[Alert], now: Timestamp) {
        if self.live {
            return;
        }
        let rows: u64 = stats.rows.values().sum();
        let behind = stats
            .watermarks
            .get("host")
            .map(|ts| whole_seconds((now - *ts).max(Span::ZERO)).to_string())
            .unwrap_or_else(|| "-".to_string());
        eprintln!(
            "{} rows={rows} rows_per_second={:.0} watermark_behind={behind} lag={} {} committed={} public={} notices_waiting={}",
            now.floor(Span::seconds(1)),
            self.rows_per_second,
            stats.lag.values().sum::<u64>(),
            alert_summary(alerts).replace(": ", "=").replace(", ", " "),
            stats.lake_rows,
            stats.public_rows,
            stats.notices_waiting
        );
    }

    /// Says something that should not be missed.
    pub fn say(&mut self, line: &str) {
        if self.live {
            let mut recent = self.recent.clone();
            drop(writeln!(recent, "{line}"));
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the cursor below the screen.
    pub fn leave(&self) {
        if self.live {
            println!();
        }
    }
}

fn whole_seconds(span: Span) -> Span {
    Span(span.0 / 1_000_000 * 1_000_000)
}

fn alert_summary(alerts: &[Alert]) -> String {
    let count = |state| alerts.iter().filter(|alert| alert.state == state).count();
    format!("firing: {}, pending: {}", count(AlertState::Firing), count(AlertState::Pending))
}

fn table_rows(stats: &Stats, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = vec![["table", "rows", "watermark", "lag", "late", "dead letters"].map(str::to_string).to_vec()];
    for (table, count) in &stats.rows {
        let watermark = stats
            .watermarks
            .get(table)
            .map(|ts| format!("{} ago", whole_seconds((now - *ts).max(Span::ZERO))))
            .unwrap_or_default();
        let number = |values: &std::collections::BTreeMap<String, u64>, name: &str| {
            values.get(name).copied().unwrap_or(0).to_string()
        };
        rows.push(vec![
            table.clone(),
            count.to_string(),
            watermark,
            number(&stats.lag, table),
            number(&stats.late_rows, table),
            number(&stats.dead_letters, &format!("tidewatch.{table}")),
        ]);
    }
    rows
}
