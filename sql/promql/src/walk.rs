//! Looking through an expression.

use crate::leaf::Leaf;
use crate::node::{Aggregation, Node};

impl Node {
    /// Its parts.
    pub fn children(&self) -> Vec<&Node> {
        match self {
            Node::Number(_)
            | Node::Now
            | Node::Calendar(_)
            | Node::Leaf(_)
            | Node::Label(_)
            | Node::KeyLabel(_)
            | Node::NoLabel
            | Node::LabelsWithout(_)
            | Node::Text(_) => vec![],
            Node::Negative(input) => vec![input],
            Node::Arithmetic(_, left, right)
            | Node::And(left, right)
            | Node::Unless(left, right)
            | Node::Or(left, right) => {
                vec![left, right]
            }
            Node::Compare { left, right, .. } => vec![left, right],
            Node::Call(_, arguments) => arguments.iter().collect(),
            Node::Aggregate { input, texts, .. } => {
                std::iter::once(&**input).chain(texts.iter().map(|(_, text)| text)).collect()
            }
            Node::Over { input, partition, .. } | Node::Top { input, partition, .. } => {
                std::iter::once(&**input).chain(partition).collect()
            }
            Node::Where { input, text, .. } => vec![input, text],
            Node::Bucket { count, bound } => vec![count, bound],
            Node::TextOfSample { sample, text } => vec![sample, text],
            Node::LabelOfOne { sample, text, partition, .. } => {
                [&**sample, text].into_iter().chain(partition).collect()
            }
            Node::Replaced { source, otherwise, .. } => vec![source, otherwise],
        }
    }

    /// What is computed of series, each once.
    pub fn leaves(&self, found: &mut Vec<Leaf>) {
        if let Node::Leaf(leaf) = self
            && !found.contains(leaf)
        {
            found.push(leaf.clone());
        }
        self.children().into_iter().for_each(|child| child.leaves(found));
    }

    /// The level whose rows are told something here.
    fn told_level(&self) -> Option<usize> {
        match self {
            Node::Over { level, .. } | Node::Top { level, .. } | Node::LabelOfOne { level, .. } => Some(*level),
            _ => None,
        }
    }

    /// How many times one after the other the rows of a level must be told something before this is known.
    pub fn depth(&self, level: usize) -> usize {
        let below = self.children().into_iter().map(|child| child.depth(level)).max().unwrap_or_default();
        below + usize::from(self.told_level() == Some(level))
    }

    /// Whether a part is a condition on labels.
    pub fn has_where(&self) -> bool {
        matches!(self, Node::Where { .. }) || self.children().into_iter().any(Node::has_where)
    }

    /// The highest level that it has.
    pub fn top_level(&self) -> usize {
        let own = match self {
            Node::Aggregate { level, .. } => *level,
            node => node.told_level().unwrap_or_default(),
        };
        self.children().into_iter().map(Node::top_level).max().unwrap_or_default().max(own)
    }

    /// Whether SQL counts it in whole numbers.
    pub fn is_whole(&self) -> bool {
        matches!(self, Node::Aggregate { function: Aggregation::Count, .. })
            || matches!(self, Node::Leaf(leaf) if leaf.function == crate::leaf::Function::Plain("count"))
    }

    /// Whether it leaves samples out by a condition.
    pub fn is_filter(&self) -> bool {
        match self {
            Node::Compare { as_number, .. } => !as_number,
            Node::And(..) | Node::Unless(..) | Node::Where { .. } | Node::Top { .. } => true,
            _ => false,
        }
    }

    /// Whether it is there whatever the rows say.
    pub fn is_always(&self) -> bool {
        match self {
            Node::Number(_) | Node::Now | Node::Calendar(_) => true,
            Node::Negative(input) => input.is_always(),
            Node::Arithmetic(_, left, right) => left.is_always() && right.is_always(),
            Node::Call(_, arguments) => arguments.iter().all(Node::is_always),
            _ => false,
        }
    }

    /// The value where no series has a sample; `None` where there is none then. What depends on the clock counts as one.
    pub fn without_series(&self) -> Option<f64> {
        match self {
            Node::Number(value) => Some(*value),
            Node::Now | Node::Calendar(_) => Some(f64::NAN),
            Node::Or(left, right) => left.without_series().or_else(|| right.without_series()),
            Node::And(left, right) => right.without_series().and(left.without_series()),
            Node::Unless(left, right) => left.without_series().filter(|_| right.without_series().is_none()),
            Node::Negative(input) => input.without_series().map(|value| -value),
            Node::Arithmetic(operator, left, right) => {
                Some(operator.of(left.without_series()?, right.without_series()?))
            }
            Node::Compare { operator, left, right, as_number, .. } => {
                let (left, right) = (left.without_series()?, right.without_series()?);
                let holds = match *operator {
                    ">" => left > right,
                    ">=" => left >= right,
                    "<" => left < right,
                    "<=" => left <= right,
                    "=" => left == right,
                    _ => left != right,
                } || left.is_nan()
                    || right.is_nan();
                if *as_number { Some(f64::from(u8::from(holds))) } else { holds.then_some(left) }
            }
            Node::Call(_, arguments) => arguments.first().and_then(Node::without_series),
            _ => None,
        }
    }
}
