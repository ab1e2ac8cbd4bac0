//! From PromQL to typed expressions, or to the reason why not. The reason names the smallest part that it is about.

use std::time::Duration;

use promql_parser::parser::token::{
    T_AVG, T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_GROUP, T_MAX, T_MIN, T_QUANTILE, T_STDDEV, T_STDVAR, T_SUM, T_TOPK,
};
use promql_parser::parser::{
    AggregateExpr, AtModifier, Expr, LabelModifier, MatrixSelector, Offset, SubqueryExpr, VectorSelector,
};

use crate::leaf::{Function, LOOKBACK, Leaf};
use crate::node::{Aggregation, Key, Kind, Node, Typed};
use crate::recorded::Recorded;
use crate::selector::Selector;

/// How many recording rules may stand in each other.
const DEPTH: usize = 8;

/// Reads expressions.
pub struct Reader<'a> {
    recorded: &'a Recorded,
    depth: usize,
    /// Recording rules that were put in.
    pub used: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader that knows these recording rules.
    pub fn new(recorded: &'a Recorded) -> Self {
        Reader { recorded, depth: 0, used: vec![] }
    }

    /// Whether a recording rule of these files records it.
    pub fn records(&self, name: &str) -> bool {
        self.recorded.has(name)
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// The part that can't be translated, and why.
    pub fn read(&mut self, expr: &Expr) -> Result<Typed, String> {
        let here = |reason: String| part(expr, &reason);
        match expr {
            Expr::Paren(inner) => self.read(&inner.expr),
            Expr::NumberLiteral(number) if number.val.is_nan() => Err(here("NaN".to_string())),
            Expr::NumberLiteral(number) => Ok(Typed::number(number.val)),
            Expr::Unary(unary) => {
                let input = self.read(&unary.expr)?;
                Ok(input.with(|node| match node {
                    Node::Number(value) => Node::Number(-value),
                    node => Node::Negative(Box::new(node)),
                }))
            }
            Expr::VectorSelector(selector) => self.instant(selector).map_err(here),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, expr),
            Expr::Binary(binary) => self.binary(binary, expr),
            Expr::Call(call) => self.call(call, expr),
            Expr::Subquery(SubqueryExpr { .. }) => Err(here(SUBQUERY.to_string())),
            Expr::MatrixSelector(_) => Err(here("a range without a function".to_string())),
            Expr::StringLiteral(_) => Err(here("a text where a number is expected".to_string())),
            Expr::Extension(_) => Err(here("an extension".to_string())),
        }
    }

    /// The newest sample of each series, or what a recording rule would have recorded.
    fn instant(&mut self, selector: &VectorSelector) -> Result<Typed, String> {
        let found = Selector::read(selector.name.as_deref(), &selector.matchers)?;
        let offset = offset(selector.offset.as_ref(), selector.at.as_ref())?;
        if self.recorded.has(&found.name) {
            return self.recorded_now(&found, selector, offset);
        }
        Ok(series(Leaf { selector: found, function: Function::Newest, range: LOOKBACK, offset }))
    }

    fn recorded_now(&mut self, found: &Selector, written: &VectorSelector, offset: Duration) -> Result<Typed, String> {
        if offset > Duration::ZERO {
            return Err(format!("'{}' is a recording rule of these files: its past is not kept", found.name));
        }
        if self.depth >= DEPTH {
            return Err(format!("'{}' is a recording rule that stands in itself, or too deep in others", found.name));
        }
        let rule = self.recorded.one(&found.name, written)?;
        self.depth += 1;
        let read = self.read(&rule.expr);
        self.depth -= 1;
        let read = read.map_err(|reason| format!("the recording rule '{}': {reason}", found.name))?;
        if !self.used.contains(&found.name) {
            self.used.push(found.name.clone());
        }
        let read = match read.kind {
            Kind::Vector(_) => read,
            Kind::Scalar | Kind::Constant => return Err(format!("the recording rule '{}' has no labels", found.name)),
        };
        rule.with_labels(read, written)
    }

    /// The samples of a range.
    pub fn range(&self, expr: &Expr, function: Function) -> Result<Typed, String> {
        match unwrapped(expr) {
            Expr::MatrixSelector(MatrixSelector { vs, range }) => {
                let selector = Selector::read(vs.name.as_deref(), &vs.matchers)?;
                if self.recorded.has(&selector.name) {
                    return Err(format!(
                        "'{}' is a recording rule of these files: its past is not kept",
                        selector.name
                    ));
                }
                let offset = offset(vs.offset.as_ref(), vs.at.as_ref())?;
                Ok(series(Leaf { selector, function, range: *range, offset }))
            }
            Expr::Subquery(_) => Err(SUBQUERY.to_string()),
            _ => Err("expected a range such as x[5m]".to_string()),
        }
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, expr: &Expr) -> Result<Typed, String> {
        let here = |reason: &str| part(expr, reason);
        if aggregate.op.id() == T_COUNT_VALUES {
            return Err(here("no translation for this aggregation"));
        }
        let parameter = match &aggregate.param {
            Some(parameter) => match self.read(parameter)?.node {
                Node::Number(number) => Some(number),
                _ => return Err(here("its parameter is no number")),
            },
            None => None,
        };
        let function = match (aggregate.op.id(), parameter) {
            (T_SUM, _) => Aggregation::Sum,
            (T_AVG, _) => Aggregation::Avg,
            (T_MIN, _) => Aggregation::Min,
            (T_MAX, _) => Aggregation::Max,
            (T_COUNT, _) => Aggregation::Count,
            (T_GROUP, _) => Aggregation::Group,
            (T_STDDEV, _) => Aggregation::Stddev,
            (T_STDVAR, _) => Aggregation::Stdvar,
            (T_QUANTILE, Some(share)) if (0.0..=1.0).contains(&share) => Aggregation::Quantile(share),
            (T_TOPK | T_BOTTOMK, Some(count)) => {
                let input = self.read(&aggregate.expr)?;
                let smallest = aggregate.op.id() == T_BOTTOMK;
                return top(input, count, smallest, aggregate.modifier.as_ref()).map_err(|reason| here(&reason));
            }
            _ => return Err(here("no translation for this aggregation")),
        };
        let input = self.read(&aggregate.expr)?;
        let key = match &aggregate.modifier {
            None => Key::By(vec![]),
            Some(LabelModifier::Include(labels)) => Key::by(labels.labels.iter().cloned()),
            Some(LabelModifier::Exclude(labels)) => Key::without(labels.labels.iter().cloned()),
        };
        grouped(input, function, key).map_err(|reason| here(&reason))
    }
}

const SUBQUERY: &str = "a subquery: expected a recording rule over it, here a CREATE STREAM and a window over that";

/// A reason with the part of the expression that it is about.
pub fn part(expr: &Expr, reason: &str) -> String {
    if reason.starts_with('`') {
        return reason.to_string();
    }
    let text: String = expr.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if text.chars().count() > 160 { text.chars().take(157).chain("...".chars()).collect() } else { text };
    format!("`{text}`: {reason}")
}

/// Without its parentheses.
pub fn unwrapped(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(inner) => unwrapped(&inner.expr),
        expr => expr,
    }
}

/// One number for each series.
pub fn series(leaf: Leaf) -> Typed {
    Typed { node: Node::Leaf(leaf), kind: Kind::Vector(vec![]), extras: vec![] }
}

/// How far back `offset` goes.
pub fn offset(offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<Duration, String> {
    match (offset, at) {
        (_, Some(_)) => Err("'@': a rule looks at the time of its evaluation".to_string()),
        (None, None) => Ok(Duration::ZERO),
        (Some(Offset::Pos(span)), None) => Ok(*span),
        (Some(Offset::Neg(_)), None) => Err("an offset into the future".to_string()),
    }
}

/// Rows put together by a key.
pub fn grouped(input: Typed, function: Aggregation, key: Key) -> Result<Typed, String> {
    let Kind::Vector(path) = &input.kind else {
        return Err("expected series to aggregate".to_string());
    };
    let key = match (reachable(&key, path)?, &key) {
        // Labels that were added are among all but some.
        (Key::By(labels), Key::Without(removed)) => {
            let added = input.extras.iter().map(|(name, _)| name).filter(|name| !removed.contains(name));
            Key::by(labels.into_iter().chain(added.cloned()))
        }
        (key, _) => key,
    };
    let of_one = matches!(function, Aggregation::Sum | Aggregation::Avg | Aggregation::Min | Aggregation::Max);
    if of_one && path.last() == Some(&key) && input.extras.is_empty() {
        return Ok(input);
    }
    let texts = match &key {
        Key::By(labels) => labels.iter().map(|label| (label.clone(), input.label(label))).collect(),
        Key::Without(_) if input.extras.is_empty() => vec![],
        Key::Without(_) => return Err("without, or ignoring, over labels that were changed".to_string()),
    };
    let mut path = path.clone();
    path.push(key.clone());
    let level = path.len();
    let node = Node::Aggregate { function, input: Box::new(input.node), level, key, texts };
    Ok(Typed { node, kind: Kind::Vector(path), extras: vec![] })
}

/// A key as it is over rows that were put together before: all but some of known labels are known labels.
pub fn reachable(key: &Key, path: &[Key]) -> Result<Key, String> {
    Ok(match (key, path.last()) {
        (Key::Without(removed), Some(Key::By(labels))) => {
            Key::by(labels.iter().filter(|label| !removed.contains(label)).cloned())
        }
        (Key::Without(removed), Some(Key::Without(before))) => Key::without(removed.iter().chain(before).cloned()),
        (key, _) => key.clone(),
    })
}

/// The texts by which rows belong together.
pub fn partition(of: &Typed, key: &Key) -> Result<Vec<Node>, String> {
    match key {
        Key::By(labels) => Ok(labels.iter().map(|label| of.label(label)).collect()),
        Key::Without(labels) if of.extras.is_empty() => Ok(vec![Node::LabelsWithout(labels.clone())]),
        Key::Without(_) => Err("without, or ignoring, over labels that were changed".to_string()),
    }
}

fn top(input: Typed, count: f64, smallest: bool, modifier: Option<&LabelModifier>) -> Result<Typed, String> {
    let Kind::Vector(path) = &input.kind else { return Err("expected series".to_string()) };
    let key = match modifier {
        None => Key::By(vec![]),
        Some(LabelModifier::Include(labels)) => Key::by(labels.labels.iter().cloned()),
        Some(LabelModifier::Exclude(labels)) => Key::without(labels.labels.iter().cloned()),
    };
    let level = path.len();
    let partition = partition(&input, &reachable(&key, path)?)?;
    Ok(input.with(|node| Node::Top { count: count.trunc(), input: Box::new(node), smallest, level, partition }))
}
