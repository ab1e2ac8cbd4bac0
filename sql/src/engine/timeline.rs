//! When the windows of one slide, size and delay end, over the same tables.

use tidewatch_model::{Span, Timestamp, WindowSpec};

/// The windows of the rules that agree in tables, slide, size and delay.
#[derive(Debug)]
pub struct Timeline {
    /// The tables, by their place in the engine's list.
    pub tables: Vec<usize>,
    /// Slide and size.
    pub spec: WindowSpec,
    /// How long they wait for stragglers.
    pub delay: Span,
    /// Whether its rules are about silence: then a window without rows says something.
    pub presence: bool,
    /// The rules, by their place in the engine's list.
    pub rules: Vec<usize>,
    /// Start of the next window to emit, once a row was seen.
    pub next_start: Option<Timestamp>,
    /// Where the watermark, less the delay, has been: no window that ends there or before is opened any more.
    pub closed: Timestamp,
    /// End of the last window emitted.
    emitted: Option<Timestamp>,
}

impl Timeline {
    /// With its first rule.
    pub fn new(tables: Vec<usize>, spec: WindowSpec, delay: Span, presence: bool, rule: usize) -> Self {
        let (rules, closed) = (vec![rule], Timestamp::MIN);
        Timeline { tables, spec, delay, presence, rules, next_start: None, closed, emitted: None }
    }

    /// Begins where the rule that is furthest behind stood; `None` is one that never was.
    pub fn restore(&mut self, emitted: Vec<Option<Timestamp>>) {
        // A new rule among them begins there too: before, not all rows are read again.
        self.closed = emitted.iter().flatten().min().copied().unwrap_or(Timestamp::MIN);
        self.emitted = emitted.iter().all(Option::is_some).then_some(self.closed);
        let first = emitted.into_iter().flatten().min();
        self.next_start = first.map(|emitted| self.spec.last_closed_start(emitted) + self.spec.slide);
    }

    /// The end of the window before the next one.
    pub fn stands(&self) -> Option<Timestamp> {
        self.next_start.map(|next| self.spec.end_of(next) - self.spec.slide)
    }

    /// A row at `ts`: the first window that holds it and was not emitted is the next one, unless an earlier one is.
    pub fn saw(&mut self, ts: Timestamp) {
        let first = self.spec.first_start_of(ts);
        let open = match self.closed {
            Timestamp::MIN => first,
            closed => self.spec.last_closed_start(closed) + self.spec.slide,
        };
        let start = first.max(open);
        self.next_start = Some(self.next_start.map_or(start, |next| next.min(start)));
    }

    /// The end of the next window, when its time has come.
    pub fn due(&self) -> Option<Timestamp> {
        let end = self.spec.end_of(self.next_start?);
        (end <= self.closed && self.emitted.is_none_or(|emitted| emitted < end)).then_some(end)
    }

    /// The window that ends at `end` was emitted.
    pub fn emit(&mut self, end: Timestamp) {
        self.emitted = Some(end);
        self.next_start = Some(end - self.spec.size + self.spec.slide);
    }

    /// Passes over windows that are closed, have no rows (the first is at `first_row`), and end before `until`.
    pub fn skip_quiet(&mut self, first_row: Option<Timestamp>, until: Timestamp) {
        let Some(next) = self.next_start else { return };
        let with_rows = first_row.map_or(Timestamp::MAX, |ts| self.spec.first_start_of(ts));
        let changing = self.spec.first_start_ending(until);
        let open = self.spec.last_closed_start(self.closed) + self.spec.slide;
        self.next_start = Some(next.max(with_rows.min(changing).min(open)));
    }
}
