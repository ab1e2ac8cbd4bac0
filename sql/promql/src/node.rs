//! A PromQL expression, read and typed: which labels its result has, and where they come from.
//!
//! A result is looked at as a table: one row for each set of labels, and a number that is NULL where PromQL has no sample. So arithmetic
//! between two vectors is arithmetic between two columns of one row, as long as both have the same labels.

use crate::leaf::Leaf;

/// The labels by which rows are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// By these, sorted; missing ones are NULL.
    By(Vec<String>),
    /// By all but these, sorted.
    Without(Vec<String>),
}

impl Key {
    /// By labels, in any order.
    pub fn by(labels: impl IntoIterator<Item = String>) -> Key {
        Key::By(sorted(labels))
    }

    /// By all others.
    pub fn without(labels: impl IntoIterator<Item = String>) -> Key {
        Key::Without(sorted(labels))
    }
}

fn sorted(labels: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = labels.into_iter().collect();
    labels.sort();
    labels.dedup();
    labels
}

/// What a result is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Scalar,
    /// One sample without labels that no series is needed for: `vector(1)`, `hour()`.
    Constant,
    /// Samples. Without keys each series has one; each key puts them together once more.
    Vector(Vec<Key>),
}

/// A typed expression.
#[derive(Debug, Clone)]
pub struct Typed {
    /// Its value.
    pub node: Node,
    /// What it is.
    pub kind: Kind,
    /// Labels that are other than those of the rows: name, and text.
    pub extras: Vec<(String, Node)>,
}

/// How numbers are put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregation {
    /// `sum`.
    Sum,
    /// `avg`.
    Avg,
    /// `min`.
    Min,
    /// `max`; also of what there is only one.
    Max,
    /// `count`.
    Count,
    /// `stddev`.
    Stddev,
    /// `stdvar`.
    Stdvar,
    /// `quantile(q, ..)`.
    Quantile(f64),
    /// `histogram_quantile(q, ..)`: of numbers of buckets, with the labels' `le`.
    Histogram(f64),
    /// `group`.
    Group,
}

/// An operator between numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Modulo,
    /// `^`.
    Power,
}

impl Arithmetic {
    /// Of two numbers.
    pub fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Arithmetic::Add => one + other,
            Arithmetic::Subtract => one - other,
            Arithmetic::Multiply => one * other,
            Arithmetic::Divide => one / other,
            Arithmetic::Modulo => one % other,
            Arithmetic::Power => one.powf(other),
        }
    }
}

/// Part of an expression.
#[derive(Debug, Clone)]
pub enum Node {
    /// A number.
    Number(f64),
    /// Seconds since the epoch.
    Now,
    /// A part of the date or the time of day, as SQL's `extract` names it.
    Calendar(&'static str),
    /// Something of each series.
    Leaf(Leaf),
    /// The other sign.
    Negative(Box<Node>),
    /// Two numbers.
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    /// A comparison: SQL's operator, both sides, whether it yields 0 and 1, and whether the right side is what it yields otherwise.
    Compare {
        /// SQL's operator.
        operator: &'static str,
        /// The left side.
        left: Box<Node>,
        /// The right side.
        right: Box<Node>,
        /// `bool`.
        as_number: bool,
        /// The left side is a number and no vector.
        yields_right: bool,
    },
    /// The first where the second is there.
    And(Box<Node>, Box<Node>),
    /// The first where the second is not there.
    Unless(Box<Node>, Box<Node>),
    /// The first, else the second.
    Or(Box<Node>, Box<Node>),
    /// A function of SQL.
    Call(&'static str, Vec<Node>),
    /// Rows put together: function, what is aggregated, the level that it belongs to, the key, and the texts of the key.
    Aggregate {
        /// The function.
        function: Aggregation,
        /// What is aggregated.
        input: Box<Node>,
        /// How many keys have put rows together after it.
        level: usize,
        /// The key.
        key: Key,
        /// The texts of a key of names.
        texts: Vec<(String, Node)>,
    },
    /// The same, told to each of the rows that were put together.
    Over {
        /// The function.
        function: Aggregation,
        /// What is aggregated.
        input: Box<Node>,
        /// The level whose rows are told.
        level: usize,
        /// Which rows belong together.
        partition: Vec<Node>,
    },
    /// The first rows by their numbers.
    Top {
        /// How many.
        count: f64,
        /// By which number.
        input: Box<Node>,
        /// Whether the smallest are first.
        smallest: bool,
        /// The level.
        level: usize,
        /// Among which rows.
        partition: Vec<Node>,
    },
    /// Where a condition on a label holds; `@` stands for its text.
    Where {
        /// What is looked at.
        input: Box<Node>,
        /// The label's text.
        text: Box<Node>,
        /// The condition.
        condition: String,
    },
    /// A bucket of a histogram: its count, and the text of its bound.
    Bucket {
        /// The count.
        count: Box<Node>,
        /// The text of `le`.
        bound: Box<Node>,
    },
    /// The same text for all.
    Text(String),
    /// The text of a label of each row at a level whose rows have all labels.
    Label(String),
    /// The text of a label that is a column of the key of a level.
    KeyLabel(String),
    /// No text: the label is missing.
    NoLabel,
    /// All labels but these, as a map.
    LabelsWithout(Vec<String>),
    /// The text of a label of the only row with a sample among those that belong together.
    LabelOfOne {
        /// The sample.
        sample: Box<Node>,
        /// The text.
        text: Box<Node>,
        /// The level.
        level: usize,
        /// Which rows belong together.
        partition: Vec<Node>,
    },
    /// The text of a label of rows with a sample.
    TextOfSample {
        /// The sample.
        sample: Box<Node>,
        /// The text.
        text: Box<Node>,
    },
    /// A text in which a regular expression is replaced, else another text.
    Replaced {
        /// The text.
        source: Box<Node>,
        /// The regular expression, anchored.
        regex: String,
        /// What replaces it.
        replacement: String,
        /// The text where it does not match.
        otherwise: Box<Node>,
    },
}

impl Typed {
    /// A number.
    pub fn number(value: f64) -> Typed {
        Typed { node: Node::Number(value), kind: Kind::Scalar, extras: vec![] }
    }

    /// How often rows have been put together; `None` without rows.
    pub fn level(&self) -> Option<usize> {
        match &self.kind {
            Kind::Vector(path) => Some(path.len()),
            Kind::Scalar | Kind::Constant => None,
        }
    }

    /// The text of a label.
    pub fn label(&self, name: &str) -> Node {
        if let Some((_, text)) = self.extras.iter().find(|(known, _)| known == name) {
            return text.clone();
        }
        match &self.kind {
            Kind::Vector(path) => match path.last() {
                None => Node::Label(name.to_string()),
                Some(Key::Without(labels)) if labels.iter().all(|removed| removed != name) => {
                    Node::Label(name.to_string())
                }
                Some(Key::By(labels)) if labels.iter().any(|known| known == name) => Node::KeyLabel(name.to_string()),
                Some(_) => Node::NoLabel,
            },
            Kind::Scalar | Kind::Constant => Node::NoLabel,
        }
    }

    /// The same labels with another value.
    pub fn with(self, make: impl FnOnce(Node) -> Node) -> Typed {
        Typed { node: make(self.node), ..self }
    }
}

/// A pair of boxes.
pub fn both(left: Node, right: Node) -> (Box<Node>, Box<Node>) {
    (Box::new(left), Box::new(right))
}
