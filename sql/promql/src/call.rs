//! Functions.

use promql_parser::parser::{Call, Expr};

use crate::leaf::{Function, LOOKBACK, Leaf};
use crate::node::{Aggregation, Arithmetic, Key, Kind, Node, Typed, both};
use crate::read::{Reader, grouped, offset, part, series, unwrapped};
use crate::selector::Selector;

impl Reader<'_> {
    /// Reads a call.
    pub fn call(&mut self, call: &Call, expr: &Expr) -> Result<Typed, String> {
        self.called(call.func.name, &call.args.args).map_err(|reason| part(expr, &reason))
    }

    fn called(&mut self, name: &str, arguments: &[Box<Expr>]) -> Result<Typed, String> {
        let range = match name {
            "rate" => Some(Function::Rate),
            "increase" => Some(Function::Increase),
            "delta" => Some(Function::Delta),
            "irate" => Some(Function::InstantRate),
            "idelta" => Some(Function::InstantDelta),
            "changes" => Some(Function::Changes),
            "resets" => Some(Function::Resets),
            "deriv" => Some(Function::Slope),
            "avg_over_time" => Some(Function::Plain("avg")),
            "min_over_time" => Some(Function::Plain("min")),
            "max_over_time" => Some(Function::Plain("max")),
            "sum_over_time" => Some(Function::Plain("sum")),
            "count_over_time" => Some(Function::Plain("count")),
            "stddev_over_time" => Some(Function::Plain("stddev_pop")),
            "stdvar_over_time" => Some(Function::Plain("var_pop")),
            "last_over_time" => Some(Function::Last),
            "present_over_time" => Some(Function::Present),
            _ => None,
        };
        match (name, range, arguments) {
            (_, Some(function), [range]) => self.range(range, function),
            ("quantile_over_time", _, [share, range]) => match self.constant(share)? {
                share if (0.0..=1.0).contains(&share) => self.range(range, Function::Quantile(share)),
                share => Err(format!("a share of {share}: expected 0 to 1")),
            },
            ("predict_linear", _, [range, ahead]) => {
                let ahead = self.constant(ahead)?;
                self.range(range, Function::Predicted(ahead))
            }
            ("histogram_quantile", _, [share, buckets]) => self.histogram(share, buckets),
            ("time", _, []) => Ok(Typed { node: Node::Now, kind: Kind::Scalar, extras: vec![] }),
            ("vector", _, [value]) => Ok(Typed { kind: Kind::Constant, ..self.read(value)? }),
            ("timestamp", _, [value]) => self.timestamp(value),
            ("minute" | "hour" | "month" | "year" | "day_of_week" | "day_of_month" | "day_of_year", _, []) => {
                Ok(Typed { node: Node::Calendar(part_of_date(name)), kind: Kind::Constant, extras: vec![] })
            }
            ("label_replace", _, [input, label, replacement, source, regex]) => {
                let texts = [label, replacement, source, regex].map(|text| text_of(text));
                let [Some(label), Some(replacement), Some(source), Some(regex)] = texts else {
                    return Err("expected texts".to_string());
                };
                let input = self.read(input)?;
                replaced(input, label, replacement, source, regex)
            }
            ("sort" | "sort_desc", _, [input]) => self.read(input),
            ("absent", _, [input]) => {
                if let Expr::VectorSelector(selector) = unwrapped(input)
                    && !Selector::read(selector.name.as_deref(), &selector.matchers)?.equal.is_empty()
                {
                    return Err("absent within a larger expression: its labels are those that are matched".to_string());
                }
                let there = grouped(self.read(input)?, Aggregation::Group, Key::By(vec![]))?;
                Ok(there.with(|node| {
                    let (one, there) = both(Node::Number(1.0), node);
                    Node::Unless(one, there)
                }))
            }
            _ => self.of_numbers(name, arguments),
        }
    }

    fn of_numbers(&mut self, name: &str, arguments: &[Box<Expr>]) -> Result<Typed, String> {
        let (function, count) = match name {
            "abs" => ("abs", 1),
            "ceil" => ("ceil", 1),
            "floor" => ("floor", 1),
            "sgn" => ("signum", 1),
            "clamp_min" => ("greatest", 2),
            "clamp_max" => ("least", 2),
            "clamp" => ("clamp", 3),
            "round" => ("round", 1),
            _ => return Err("no translation for this function".to_string()),
        };
        let Some((input, rest)) = arguments.split_first() else { return Err("expected an argument".to_string()) };
        let input = self.read(input)?;
        if name != "round" && rest.len() + 1 != count {
            return Err(format!("expected {count} arguments"));
        }
        let numbers =
            rest.iter().map(|argument| self.constant(argument).map(Node::Number)).collect::<Result<Vec<_>, _>>()?;
        Ok(input.with(|node| match (function, numbers.as_slice()) {
            ("round", _) => rounded(node, numbers.first()),
            ("clamp", [least, most]) => {
                let above = Node::Call("greatest", vec![node, least.clone()]);
                Node::Call("least", vec![above, most.clone()])
            }
            _ => Node::Call(function, std::iter::once(node).chain(numbers).collect()),
        }))
    }

    /// A number that is written.
    fn constant(&mut self, expr: &Expr) -> Result<f64, String> {
        match self.read(expr)?.node {
            Node::Number(number) => Ok(number),
            _ => Err(format!("expected a number, found {expr}")),
        }
    }

    fn timestamp(&mut self, expr: &Expr) -> Result<Typed, String> {
        let Expr::VectorSelector(selector) = unwrapped(expr) else {
            return Err("the time of something that is no series".to_string());
        };
        let found = Selector::read(selector.name.as_deref(), &selector.matchers)?;
        let offset = offset(selector.offset.as_ref(), selector.at.as_ref())?;
        Ok(series(Leaf { selector: found, function: Function::Timestamp, range: LOOKBACK, offset }))
    }

    fn histogram(&mut self, share: &Expr, buckets: &Expr) -> Result<Typed, String> {
        let share = self.constant(share)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("a share of {share}: expected 0 to 1"));
        }
        let buckets = self.read(buckets)?;
        // Sums of buckets by their bounds are made by the quantile itself.
        if let Node::Aggregate { function: Aggregation::Sum, input, level: 1, key: key @ Key::By(_), texts } =
            &buckets.node
            && let Some((_, bound)) = texts.iter().find(|(name, _)| name == "le")
            && buckets.extras.is_empty()
        {
            let Key::By(labels) = key else { return Err("expected labels".to_string()) };
            let key = Key::by(labels.iter().filter(|label| *label != "le").cloned());
            let texts = texts.iter().filter(|(name, _)| name != "le").cloned().collect();
            let input = Box::new(Node::Bucket { count: input.clone(), bound: Box::new(bound.clone()) });
            let node =
                Node::Aggregate { function: Aggregation::Histogram(share), input, level: 1, key: key.clone(), texts };
            return Ok(Typed { node, kind: Kind::Vector(vec![key]), extras: vec![] });
        }
        let bound = match buckets.label("le") {
            Node::NoLabel => return Err("its buckets have lost their label le".to_string()),
            bound => bound,
        };
        let buckets = buckets.with(|count| Node::Bucket { count: Box::new(count), bound: Box::new(bound) });
        grouped(buckets, Aggregation::Histogram(share), Key::without(["le".to_string()]))
    }
}

/// Half up, as Prometheus rounds.
fn rounded(node: Node, to: Option<&Node>) -> Node {
    let half = |node: Node| {
        let (left, right) = both(node, Node::Number(0.5));
        Node::Call("floor", vec![Node::Arithmetic(Arithmetic::Add, left, right)])
    };
    let scaled = |operator, node: Node, to: &Node| {
        let (left, right) = both(node, to.clone());
        Node::Arithmetic(operator, left, right)
    };
    match to {
        None => half(node),
        Some(to) => scaled(Arithmetic::Multiply, half(scaled(Arithmetic::Divide, node, to)), to),
    }
}

fn part_of_date(name: &str) -> &'static str {
    match name {
        "minute" => "minute",
        "hour" => "hour",
        "month" => "month",
        "year" => "year",
        "day_of_week" => "dow",
        "day_of_year" => "doy",
        _ => "day",
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match unwrapped(expr) {
        Expr::StringLiteral(text) => Some(&text.val),
        _ => None,
    }
}

fn replaced(input: Typed, label: &str, replacement: &str, source: &str, regex: &str) -> Result<Typed, String> {
    let anchored = format!("^(?:{regex})$");
    let read = regex::Regex::new(&anchored).map_err(|_| format!("the regular expression {regex:?} can't be read"))?;
    if matches!(input.label(label), Node::KeyLabel(_)) {
        return Err(format!("the label '{label}' of the aggregation is changed"));
    }
    if read.capture_names().flatten().next().is_some() {
        return Err("groups with names".to_string());
    }
    let node = Node::Replaced {
        source: Box::new(input.label(source)),
        regex: anchored,
        replacement: groups(replacement, read.captures_len())?,
        otherwise: Box::new(input.label(label)),
    };
    let mut extras = input.extras.clone();
    extras.retain(|(known, _)| known != label);
    extras.push((label.to_string(), node));
    Ok(Typed { extras, ..input })
}

/// `$1` and `${1}` as SQL's `\1`.
fn groups(replacement: &str, count: usize) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => rest.split_at(
                rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len()),
            ),
        };
        match name.parse::<usize>() {
            Ok(number) if number < count && number < 10 => text.push_str(&format!("\\{number}")),
            // A group that is not there is an empty text.
            Ok(_) => {}
            Err(_) => return Err(format!("a group '{name}' in the replacement")),
        }
        rest = after;
    }
    text.push_str(rest);
    if text.contains('$') || replacement.contains('\\') {
        return Err("'$' or a backslash in the replacement".to_string());
    }
    Ok(text)
}
