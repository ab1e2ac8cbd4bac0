//! Operators between two results: which row meets which.

use promql_parser::parser::token::{
    T_ADD, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MOD, T_MUL, T_NEQ, T_POW, T_SUB,
};
use promql_parser::parser::{BinModifier, BinaryExpr, Expr, LabelModifier, VectorMatchCardinality};

use crate::node::{Aggregation, Arithmetic, Key, Kind, Node, Typed, both};
use crate::read::{Reader, grouped, part, partition, reachable};

/// What an operator does.
#[derive(Clone, Copy)]
enum Operator {
    Arithmetic(Arithmetic),
    Compare(&'static str),
    And,
    Or,
    Unless,
}

fn operator(id: u16) -> Option<Operator> {
    Some(match id {
        T_ADD => Operator::Arithmetic(Arithmetic::Add),
        T_SUB => Operator::Arithmetic(Arithmetic::Subtract),
        T_MUL => Operator::Arithmetic(Arithmetic::Multiply),
        T_DIV => Operator::Arithmetic(Arithmetic::Divide),
        T_MOD => Operator::Arithmetic(Arithmetic::Modulo),
        T_POW => Operator::Arithmetic(Arithmetic::Power),
        T_EQLC => Operator::Compare("="),
        T_NEQ => Operator::Compare("<>"),
        T_GTR => Operator::Compare(">"),
        T_GTE => Operator::Compare(">="),
        T_LSS => Operator::Compare("<"),
        T_LTE => Operator::Compare("<="),
        T_LAND => Operator::And,
        T_LOR => Operator::Or,
        T_LUNLESS => Operator::Unless,
        _ => return None,
    })
}

impl Operator {
    fn is_of_sets(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }

    fn of(self, left: Node, right: Node, as_number: bool, yields_right: bool) -> Node {
        if let (Operator::Arithmetic(operator), Node::Number(one), Node::Number(other)) = (self, &left, &right) {
            return Node::Number(operator.of(*one, *other));
        }
        let (left, right) = both(left, right);
        match self {
            Operator::Arithmetic(operator) => Node::Arithmetic(operator, left, right),
            Operator::Compare(operator) => Node::Compare { operator, left, right, as_number, yields_right },
            Operator::And => Node::And(left, right),
            Operator::Or => Node::Or(left, right),
            Operator::Unless => Node::Unless(left, right),
        }
    }
}

impl Reader<'_> {
    /// Reads an operator and both its sides.
    pub fn binary(&mut self, binary: &BinaryExpr, expr: &Expr) -> Result<Typed, String> {
        let here = |reason: &str| part(expr, reason);
        let operator = operator(binary.op.id()).ok_or_else(|| here("no translation for this operator"))?;
        let left = self.read(&binary.lhs)?;
        let right = self.read(&binary.rhs)?;
        let as_number = binary.modifier.as_ref().is_some_and(|modifier| modifier.return_bool);
        let Some(modifier) = &binary.modifier else {
            return combined(operator, left, right, as_number).map_err(|reason| here(&reason));
        };
        if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
            return Err(here("fill values"));
        }
        let matched = match (&modifier.matching, operator.is_of_sets()) {
            (None, _) => combined(operator, left, right, as_number),
            (Some(on), true) => of_sets(operator, left, right, on),
            (Some(on), false) => matched(operator, left, right, on, modifier),
        };
        matched.map_err(|reason| here(&reason))
    }
}

/// Both sides have the same labels, or one is a number.
fn combined(operator: Operator, left: Typed, right: Typed, as_number: bool) -> Result<Typed, String> {
    let (left, right) = aligned(left, right)?;
    let kind = match (&left.kind, &right.kind) {
        (Kind::Scalar, other) | (other, Kind::Scalar) => other.clone(),
        (Kind::Constant, Kind::Constant) => Kind::Constant,
        (Kind::Constant, Kind::Vector(path)) | (Kind::Vector(path), Kind::Constant) if is_one(path) => {
            Kind::Vector(path.clone())
        }
        (Kind::Vector(one), Kind::Vector(other)) if one == other && same_extras(&left, &right) => {
            Kind::Vector(one.clone())
        }
        _ => {
            let how = "expected on(..) or ignoring(..), since without them only series with equal labels meet";
            return Err(format!("the two sides have different labels ({} and {}): {how}", shown(&left), shown(&right)));
        }
    };
    if operator.is_of_sets() && (left.kind == Kind::Scalar || right.kind == Kind::Scalar) {
        return Err("and, or, unless with a number".to_string());
    }
    if matches!(operator, Operator::Or) && kind == Kind::Constant {
        return Err("or between constants".to_string());
    }
    let yields_right = left.kind == Kind::Scalar && right.kind != Kind::Scalar;
    let extras = if left.extras.is_empty() { right.extras } else { left.extras };
    Ok(Typed { node: operator.of(left.node, right.node, as_number, yields_right), kind, extras })
}

fn is_one(path: &[Key]) -> bool {
    matches!(path.last(), Some(Key::By(labels)) if labels.is_empty())
}

fn same_extras(left: &Typed, right: &Typed) -> bool {
    format!("{:?}", left.extras) == format!("{:?}", right.extras)
}

fn shown(typed: &Typed) -> String {
    let labels = match &typed.kind {
        Kind::Scalar | Kind::Constant => "none".to_string(),
        Kind::Vector(path) => match path.last() {
            None => "all of the series'".to_string(),
            Some(Key::By(labels)) if labels.is_empty() => "none".to_string(),
            Some(Key::By(labels)) => labels.join(", "),
            Some(Key::Without(labels)) => format!("all but {}", labels.join(", ")),
        },
    };
    match typed.extras.as_slice() {
        [] => labels,
        extras => format!("{labels}, {}", extras.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

/// The key that `on` and `ignoring` name over one side.
fn key_over(on: &LabelModifier, side: &Typed) -> Result<Key, String> {
    let Kind::Vector(path) = &side.kind else { return Ok(Key::By(vec![])) };
    match on {
        LabelModifier::Include(labels) => Ok(Key::by(labels.labels.iter().cloned())),
        LabelModifier::Exclude(labels) => reachable(&Key::without(labels.labels.iter().cloned()), path),
    }
}

/// `and`, `unless` with `on` or `ignoring`: the left side's rows, where the right side has one.
fn of_sets(operator: Operator, left: Typed, right: Typed, on: &LabelModifier) -> Result<Typed, String> {
    if matches!(operator, Operator::Or) {
        return Err("or with on or ignoring: the right side's labels would be kept".to_string());
    }
    let key = key_over(on, &left)?;
    if key_over(on, &right)? != key {
        return Err("the two sides do not have the labels that they are matched by".to_string());
    }
    let (left, right) = match (&left.kind, &right.kind) {
        (Kind::Vector(one), Kind::Vector(other)) if one.last() == Some(&key) && other.len() + 1 == one.len() => {
            let right = grouped(right, Aggregation::Max, key.clone())?;
            aligned(left, right)?
        }
        (Kind::Vector(one), Kind::Vector(other)) if one.last() == Some(&key) && other.last() == Some(&key) => {
            aligned(left, right)?
        }
        _ => (left, right),
    };
    if left.kind == right.kind && matches!(&left.kind, Kind::Vector(path) if path.last() == Some(&key)) {
        let extras = left.extras;
        return Ok(Typed { node: operator.of(left.node, right.node, false, false), kind: left.kind, extras });
    }
    let told = told(right, &left, &key)?;
    Ok(left.with(|node| operator.of(node, told, false, false)))
}

/// Arithmetic and comparisons with `on` or `ignoring`.
fn matched(
    operator: Operator,
    left: Typed,
    right: Typed,
    on: &LabelModifier,
    modifier: &BinModifier,
) -> Result<Typed, String> {
    let as_number = modifier.return_bool;
    let (labels, many_is_left) = match &modifier.card {
        VectorMatchCardinality::ManyToOne(labels) => (labels, true),
        VectorMatchCardinality::OneToMany(labels) => (labels, false),
        _ => {
            let key = key_over(on, &left)?;
            if key_over(on, &right)? != key {
                return Err("the two sides do not have the labels that they are matched by".to_string());
            }
            let left = only(left, &key)?;
            let right = only(right, &key)?;
            return combined(operator, left, right, as_number);
        }
    };
    let (many, one) = if many_is_left { (left, right) } else { (right, left) };
    let key = key_over(on, &many)?;
    if key_over(on, &one)? != key {
        return Err("the two sides do not have the labels that they are matched by".to_string());
    }
    let mut extras = many.extras.clone();
    for label in &labels.labels {
        let text = label_of_one(&one, &many, &key, label)?;
        if matches!(many.label(label), Node::KeyLabel(_)) {
            return Err(format!("group_left changes the label '{label}' of the aggregation"));
        }
        extras.retain(|(known, _)| known != label);
        extras.push((label.clone(), text));
    }
    let one = coarser(one, &many, &key)?;
    let told = match one.kind == many.kind && many_is_keyed(&many, &key) {
        true => one.node,
        false => told(one, &many, &key)?,
    };
    let kind = many.kind.clone();
    let (left, right) = if many_is_left { (many.node, told) } else { (told, many.node) };
    Ok(Typed { node: operator.of(left, right, as_number, false), kind, extras })
}

/// The one row of each key.
fn only(side: Typed, key: &Key) -> Result<Typed, String> {
    match &side.kind {
        Kind::Vector(path) if path.last() == Some(key) && side.extras.is_empty() => Ok(side),
        Kind::Vector(_) => grouped(side, Aggregation::Max, key.clone()),
        Kind::Scalar | Kind::Constant => Ok(side),
    }
}

/// Both sides put together in the same steps, where the labels are the same at the end.
fn aligned(left: Typed, right: Typed) -> Result<(Typed, Typed), String> {
    let (Kind::Vector(one), Kind::Vector(other)) = (&left.kind, &right.kind) else { return Ok((left, right)) };
    match (one.as_slice(), other.as_slice()) {
        (one, other) if one == other => {}
        ([], [.., Key::Without(labels)]) if other.len() == 1 => {
            let labels = labels.clone();
            return Ok((without_any(left, &labels)?, right));
        }
        ([.., Key::Without(labels)], []) if one.len() == 1 => {
            let labels = labels.clone();
            return Ok((left, without_any(right, &labels)?));
        }
        ([key], [fine, other]) if key == other => {
            let fine = fine.clone();
            return Ok((finer(left, &fine)?, right));
        }
        ([fine, one], [key]) if key == one => {
            let fine = fine.clone();
            return Ok((left, finer(right, &fine)?));
        }
        _ => {}
    }
    Ok((left, right))
}

/// Only series that have none of these labels: they alone have the same labels as what was aggregated without them.
fn without_any(side: Typed, labels: &[String]) -> Result<Typed, String> {
    let mut side = side;
    for label in labels {
        let text = Box::new(side.label(label));
        let condition = "@ IS NULL".to_string();
        side = side.with(|node| Node::Where { input: Box::new(node), text, condition });
    }
    grouped(side, Aggregation::Max, Key::Without(labels.to_vec()))
}

/// An aggregate as one of smaller parts.
fn finer(side: Typed, fine: &Key) -> Result<Typed, String> {
    let Kind::Vector(path) = &side.kind else { return Ok(side) };
    let path = vec![fine.clone(), path[path.len() - 1].clone()];
    let node = mapped(side.node, &mut |node| match node {
        Node::Aggregate { function, input, level: 1, key, texts } => {
            let Some(once_more) = once_more(function) else {
                return Err("an aggregation that can't be made of parts meets one of parts".to_string());
            };
            let below = match fine {
                Key::By(labels) => labels.iter().map(|label| (label.clone(), Node::Label(label.clone()))).collect(),
                Key::Without(_) => vec![],
            };
            let lost = |label: &String| match fine {
                Key::By(labels) => !labels.contains(label),
                Key::Without(labels) => labels.contains(label),
            };
            let plain =
                |(label, text): &(String, Node)| matches!(text, Node::Label(name) if name == label) && !lost(label);
            let Key::By(names) = &key else { return Err("aggregations without labels in each other".to_string()) };
            if !texts.iter().all(plain) {
                return Err("the two sides are aggregated in different ways".to_string());
            }
            let of_fine = |label: &String| match fine {
                Key::By(_) => Node::KeyLabel(label.clone()),
                Key::Without(_) => Node::Label(label.clone()),
            };
            let texts = names.iter().map(|label| (label.clone(), of_fine(label))).collect();
            let parts = Node::Aggregate { function, input, level: 1, key: fine.clone(), texts: below };
            Ok(Node::Aggregate { function: once_more, input: Box::new(parts), level: 2, key, texts })
        }
        Node::Number(_) | Node::Now | Node::Calendar(_) => Ok(node),
        _ => Err("the two sides are aggregated in different ways".to_string()),
    })?;
    Ok(Typed { node, kind: Kind::Vector(path), extras: side.extras })
}

/// What makes an aggregate of aggregates of parts.
fn once_more(function: Aggregation) -> Option<Aggregation> {
    match function {
        Aggregation::Sum | Aggregation::Count => Some(Aggregation::Sum),
        Aggregation::Min => Some(Aggregation::Min),
        Aggregation::Max | Aggregation::Group => Some(Aggregation::Max),
        _ => None,
    }
}

fn many_is_keyed(many: &Typed, key: &Key) -> bool {
    matches!(&many.kind, Kind::Vector(path) if path.last() == Some(key))
}

/// The one side by the key itself: of each key it has one row, so that what it was aggregated by besides adds nothing.
fn coarser(one: Typed, many: &Typed, key: &Key) -> Result<Typed, String> {
    let (Kind::Vector(of_one), Kind::Vector(of_many)) = (&one.kind, &many.kind) else { return Ok(one) };
    if of_one.is_empty() && of_many.len() == 1 {
        return grouped(one, Aggregation::Max, key.clone());
    }
    match (of_one.as_slice(), key) {
        ([Key::By(fine)], Key::By(coarse)) if fine != coarse && coarse.iter().all(|label| fine.contains(label)) => {
            let coarse = coarse.clone();
            let node = mapped(one.node, &mut |node| match node {
                Node::Aggregate { function, input, level, texts, .. } => {
                    let texts = texts.into_iter().filter(|(label, _)| coarse.contains(label)).collect();
                    Ok(Node::Aggregate { function, input, level, key: Key::By(coarse.clone()), texts })
                }
                Node::Number(_) | Node::Now | Node::Calendar(_) => Ok(node),
                _ => Err("too many aggregations in each other".to_string()),
            })?;
            Ok(Typed { node, kind: Kind::Vector(vec![key.clone()]), extras: vec![] })
        }
        _ => Ok(one),
    }
}

/// What the one row of a key says, told to each row of the other side.
fn told(one: Typed, rows: &Typed, key: &Key) -> Result<Node, String> {
    let Some(level) = rows.level() else { return Err("expected series on the left side".to_string()) };
    let same = partition(rows, key)?;
    let Kind::Vector(path) = &one.kind else { return Ok(one.node) };
    let Kind::Vector(of_rows) = &rows.kind else { return Ok(one.node) };
    if path == of_rows {
        check_same_texts(&one, &same, key)?;
        return Ok(Node::Over { function: Aggregation::Max, input: Box::new(one.node), level, partition: same });
    }
    if path.last() == Some(key) && path.len() == level + 1 && path.starts_with(of_rows) {
        return lowered(one.node, level, &same);
    }
    if path.last() == Some(key)
        && let (Some(Key::By(fine)), Key::By(coarse)) = (of_rows.last(), key)
        && of_rows.len() == path.len()
        && coarse.iter().all(|label| fine.contains(label))
        && path[..path.len() - 1] == of_rows[..level - 1]
    {
        return again(one.node, level, fine, &same);
    }
    Err("the two sides are aggregated in different ways: expected the one side aggregated by the labels that they are matched by".to_string())
}

fn check_same_texts(one: &Typed, same: &[Node], key: &Key) -> Result<(), String> {
    match format!("{:?}", partition(one, key)?) == format!("{same:?}") {
        true => Ok(()),
        false => Err("a label that they are matched by is changed on one side".to_string()),
    }
}

/// An aggregate by the key, told to each row below it.
fn lowered(node: Node, level: usize, same: &[Node]) -> Result<Node, String> {
    mapped(node, &mut |node| match node {
        Node::Aggregate { function: Aggregation::Histogram(_) | Aggregation::Quantile(_), .. } => {
            Err("a quantile that is told to many rows".to_string())
        }
        Node::Aggregate { function, input, .. } => Ok(Node::Over { function, input, level, partition: same.to_vec() }),
        Node::Over { .. } | Node::Top { .. } | Node::LabelOfOne { .. } | Node::Where { .. } => {
            Err("too many aggregations in each other".to_string())
        }
        other => Ok(other),
    })
}

/// An aggregate by the key as an aggregate of the finer one that the other side has.
fn again(node: Node, level: usize, fine: &[String], same: &[Node]) -> Result<Node, String> {
    mapped(node, &mut |node| match node {
        Node::Aggregate { function, input, texts, .. } => {
            let Some(once_more) = once_more(function) else {
                return Err("an aggregation that can't be made of parts is told to many rows".to_string());
            };
            let known = |label: &String| texts.iter().find(|(name, _)| name == label).map(|(_, text)| text.clone());
            let texts =
                fine.iter().map(|label| (label.clone(), known(label).unwrap_or_else(|| Node::Label(label.clone()))));
            let texts: Vec<(String, Node)> = texts.collect();
            if level > 1 && texts.iter().any(|(_, text)| matches!(text, Node::Label(_))) {
                return Err("too many aggregations in each other".to_string());
            }
            let inner = Node::Aggregate { function, input, level, key: Key::By(fine.to_vec()), texts };
            Ok(Node::Over { function: once_more, input: Box::new(inner), level, partition: same.to_vec() })
        }
        Node::Over { .. } | Node::Top { .. } | Node::LabelOfOne { .. } | Node::Where { .. } => {
            Err("too many aggregations in each other".to_string())
        }
        other => Ok(other),
    })
}

/// Rebuilds an expression; `change` sees every part that is no plain operator.
fn mapped(node: Node, change: &mut dyn FnMut(Node) -> Result<Node, String>) -> Result<Node, String> {
    let mut boxed = |node: Box<Node>| mapped(*node, change).map(Box::new);
    Ok(match node {
        Node::Negative(input) => Node::Negative(boxed(input)?),
        Node::Arithmetic(operator, left, right) => Node::Arithmetic(operator, boxed(left)?, boxed(right)?),
        Node::Compare { operator, left, right, as_number, yields_right } => {
            Node::Compare { operator, left: boxed(left)?, right: boxed(right)?, as_number, yields_right }
        }
        Node::And(left, right) => Node::And(boxed(left)?, boxed(right)?),
        Node::Unless(left, right) => Node::Unless(boxed(left)?, boxed(right)?),
        Node::Or(left, right) => Node::Or(boxed(left)?, boxed(right)?),
        Node::Call(name, arguments) => {
            Node::Call(name, arguments.into_iter().map(|argument| mapped(argument, change)).collect::<Result<_, _>>()?)
        }
        other => change(other)?,
    })
}

/// The text of a label that `group_left` takes over from the one row.
fn label_of_one(one: &Typed, rows: &Typed, key: &Key, label: &str) -> Result<Node, String> {
    let Some(level) = rows.level() else { return Err("expected series".to_string()) };
    if one.kind == rows.kind {
        let partition = partition(rows, key)?;
        return Ok(Node::LabelOfOne {
            sample: Box::new(one.node.clone()),
            text: Box::new(one.label(label)),
            level,
            partition,
        });
    }
    if matches!(key, Key::By(labels) if labels.iter().any(|known| known == label)) {
        return Ok(rows.label(label));
    }
    let (sample, text) = match (&one.kind, &one.node) {
        (_, _) if matches!(one.label(label), Node::NoLabel) => return Ok(Node::NoLabel),
        (Kind::Vector(path), node) if path.is_empty() => (node.clone(), one.label(label)),
        (Kind::Vector(path), Node::Aggregate { input, texts, .. }) if path.len() == 1 => {
            let text = texts.iter().find(|(known, _)| known == label).map(|(_, text)| text.clone());
            ((**input).clone(), text.unwrap_or_else(|| Node::Label(label.to_string())))
        }
        _ => return Err(format!("group_left takes the label '{label}' from something that is computed")),
    };
    // Of each key there is one row with a sample: its text is the largest.
    let sample = Typed { node: sample, kind: Kind::Vector(vec![]), extras: vec![] };
    let of_key = grouped(
        sample.with(|sample| Node::TextOfSample { sample: Box::new(sample), text: Box::new(text) }),
        Aggregation::Max,
        key.clone(),
    )?;
    match many_is_keyed(rows, key) && of_key.kind == rows.kind {
        true => Ok(of_key.node),
        false => told(of_key, rows, key),
    }
}
