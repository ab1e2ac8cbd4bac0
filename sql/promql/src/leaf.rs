//! What is computed of each series: a selector, a function over the samples of a time before the evaluation, and that time.

use std::time::Duration;

use crate::selector::Selector;
use crate::text::{interval, number};

/// How far back an instant vector looks, as Prometheus does by default.
pub const LOOKBACK: Duration = Duration::from_secs(300);

/// What a row says of a series that has not ended.
pub const HAS_VALUE: &str = "value IS NOT NULL";

/// A function over samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// The newest sample, none where a series has ended since: what a selector without a range is.
    Newest,
    /// When that was, in seconds.
    Timestamp,
    /// `last_over_time`.
    Last,
    /// An aggregate of SQL of that name.
    Plain(&'static str),
    /// `quantile_over_time`.
    Quantile(f64),
    /// 1 where there are samples.
    Present,
    /// `increase`.
    Increase,
    /// `rate`.
    Rate,
    /// `delta`.
    Delta,
    /// `irate`.
    InstantRate,
    /// `idelta`.
    InstantDelta,
    /// `changes`.
    Changes,
    /// `resets`.
    Resets,
    /// `deriv`.
    Slope,
    /// `predict_linear`, so many seconds ahead.
    Predicted(f64),
}

/// What is computed of each series.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Which series.
    pub selector: Selector,
    /// The function.
    pub function: Function,
    /// How far back samples are taken.
    pub range: Duration,
    /// How far before the evaluation that ends.
    pub offset: Duration,
}

/// The SQL of a leaf.
pub struct Columns {
    /// Aggregates over the series' rows: names and calls.
    pub aggregates: Vec<(String, String)>,
    /// The leaf's value over these, where it is not the only one of them.
    pub formula: Option<String>,
}

impl Function {
    /// Whether its SQL is a sum of parts.
    pub fn is_sum(self) -> bool {
        matches!(self, Function::Predicted(_))
    }
}

impl Leaf {
    /// How far back its samples reach.
    pub fn reach(&self) -> Duration {
        self.range + self.offset
    }

    /// Whether it looks at neighbouring samples.
    pub fn looks_at_neighbours(&self) -> bool {
        matches!(self.function, Function::InstantRate | Function::InstantDelta | Function::Changes | Function::Resets)
    }

    /// Whether a row without a value tells it that the series has ended. A range passes over such rows.
    pub fn sees_ends(&self) -> bool {
        matches!(self.function, Function::Newest | Function::Timestamp)
    }

    /// Whether it must not meet rows without a value.
    pub fn needs_values(&self) -> bool {
        self.looks_at_neighbours() || !self.is_plain()
    }

    /// Whether its value is one aggregate.
    pub fn is_plain(&self) -> bool {
        !matches!(self.function, Function::Increase | Function::Rate | Function::Delta)
    }

    /// Its columns, called after `name`. `given` are conditions that all rows pass; `size` is the window's.
    pub fn columns(&self, name: &str, given: &[String], size: Duration) -> Columns {
        let mut conditions = self.selector.conditions();
        if self.needs_values() {
            conditions.push(HAS_VALUE.to_string());
        }
        conditions.retain(|condition| !given.contains(condition));
        if self.offset > Duration::ZERO {
            conditions.push(format!("ts < window_end - {}", interval(self.offset)));
        }
        if self.reach() < size {
            conditions.push(format!("ts >= window_end - {}", interval(self.reach())));
            if matches!(self.function, Function::InstantRate | Function::InstantDelta) {
                conditions.push(format!("before_ts >= window_end - {}", interval(self.reach())));
            }
        }
        let filter = match conditions.is_empty() {
            true => String::new(),
            false => format!(" FILTER (WHERE {})", conditions.join(" AND ")),
        };
        let call = |text: &str| format!("{text}{filter}");
        let one = |text: String| Columns { aggregates: vec![(name.to_string(), text)], formula: None };
        match self.function {
            Function::Newest => one(call("last(value)") + " RESPECT NULLS"),
            Function::Timestamp => one(format!(
                "CASE WHEN {} RESPECT NULLS IS NOT NULL THEN extract(epoch FROM {}) END",
                call("last(value)"),
                call("max(ts)")
            )),
            Function::Last => one(call("last(value)")),
            Function::Plain("count") => one(format!("nullif({}, 0)", call("count(value)"))),
            Function::Plain(function) => one(call(&format!("{function}(value)"))),
            Function::Quantile(share) => one(call(&format!("percentile_cont(value, {})", number(share)))),
            Function::Present => one(format!("CASE WHEN {} > 0 THEN 1.0 END", call("count(value)"))),
            Function::InstantDelta => one(call("last(value - before)")),
            Function::InstantRate => one(call(
                "last(ratio(CASE WHEN value < before THEN value ELSE value - before END, extract(epoch FROM ts) - extract(epoch FROM before_ts)))",
            )),
            Function::Changes => one(call(&self.counted("<>", size))),
            Function::Resets => one(call(&self.counted("<", size))),
            Function::Slope => one(slope(&call)),
            Function::Predicted(ahead) => one(format!(
                "{} + {} * ({} + {} - {})",
                call("avg(value)"),
                slope(&call),
                self.end(),
                number(ahead),
                call("avg(CASE WHEN value IS NOT NULL THEN extract(epoch FROM ts) END)")
            )),
            Function::Increase | Function::Rate | Function::Delta => self.growth(name, &call),
        }
    }

    /// How often a sample is so to the one before it within its time: never, where there is only one.
    fn counted(&self, operator: &str, size: Duration) -> String {
        let within = match self.reach() < size {
            true => format!(" AND before_ts >= window_end - {}", interval(self.reach())),
            false => String::new(),
        };
        format!("sum(CASE WHEN value {operator} before{within} THEN 1.0 ELSE 0.0 END)")
    }

    /// The end of its time, in seconds.
    fn end(&self) -> String {
        match self.offset.as_secs_f64() {
            0.0 => "extract(epoch FROM window_end)".to_string(),
            offset => format!("extract(epoch FROM window_end) - {}", number(offset)),
        }
    }

    /// `increase`, `rate` and `delta` as Prometheus has them: what was seen from the first to the last sample, drawn out to the ends of the
    /// time where samples come close to them, else by half a step; a counter not below zero.
    fn growth(&self, name: &str, call: &impl Fn(&str) -> String) -> Columns {
        let column = |what: &str| format!("{name}_{what}");
        let grown = match self.function {
            Function::Delta => format!("{} - {}", call("last(value)"), call("first(value)")),
            _ => call("increase(value)"),
        };
        let (first, last) = (call("min(ts)"), call("max(ts)"));
        let end = self.end();
        let start = format!("({end} - {})", number(self.range.as_secs_f64()));
        let mut aggregates = vec![
            (column("grown"), grown),
            (column("steps"), format!("{} - 1", call("count(value)"))),
            (column("seen"), format!("extract(epoch FROM {last}) - extract(epoch FROM {first})")),
            (column("head"), format!("extract(epoch FROM {first}) - {start}")),
            (column("tail"), format!("{end} - extract(epoch FROM {last})")),
        ];
        let [grown, steps, seen, head, tail] = ["grown", "steps", "seen", "head", "tail"].map(column);
        let head = match self.function {
            Function::Delta => head,
            _ => {
                let first = column("first");
                aggregates.push((first.clone(), call("first(value)")));
                format!("CASE WHEN {grown} > 0 THEN least({head}, {seen} * ratio({first}, {grown})) ELSE {head} END")
            }
        };
        let drawn = |edge: &str| {
            format!("CASE WHEN {edge} < 1.1 * ratio({seen}, {steps}) THEN {edge} ELSE ratio({seen}, {steps}) / 2 END")
        };
        let mut formula = format!("ratio({grown}, {seen}) * ({seen} + {} + {})", drawn(&head), drawn(&tail));
        if self.function == Function::Rate {
            formula = format!("{formula} / {}", number(self.range.as_secs_f64()));
        }
        Columns { aggregates, formula: Some(formula) }
    }
}

/// By how much values rise in a second; exactly nought where they are all the same.
fn slope(call: &impl Fn(&str) -> String) -> String {
    format!(
        "CASE WHEN {} = {} AND {} > 1 THEN 0.0 ELSE {} END",
        call("max(value)"),
        call("min(value)"),
        call("count(value)"),
        call("regr_slope(value, extract(epoch FROM ts))")
    )
}
