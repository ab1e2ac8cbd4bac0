//! Recording rules of the files: where a rule names what one of them records, its expression is put in.

use std::collections::BTreeMap;

use promql_parser::label::Matcher;
use promql_parser::parser::{Expr, VectorSelector};

use crate::node::{Node, Typed};
use crate::selector::condition;

/// One recording rule.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What is recorded.
    pub expr: Expr,
    /// Labels that it adds.
    pub labels: BTreeMap<String, String>,
}

/// All of them by the name of what they record.
#[derive(Debug, Default)]
pub struct Recorded(BTreeMap<String, Vec<Recording>>);

impl Recorded {
    /// Adds one.
    pub fn add(&mut self, name: &str, recording: Recording) {
        self.0.entry(name.to_string()).or_default().push(recording);
    }

    /// Whether a rule records it.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The one rule whose labels fit a selector.
    pub fn one(&self, name: &str, selector: &VectorSelector) -> Result<&Recording, String> {
        let fits = |rule: &&Recording| {
            let mut known = selector
                .matchers
                .matchers
                .iter()
                .filter_map(|matcher| rule.labels.get(&matcher.name).map(|value| matcher.is_match(value)));
            known.all(|fits| fits)
        };
        let fitting: Vec<&Recording> = self.0.get(name).into_iter().flatten().filter(fits).collect();
        match fitting.as_slice() {
            [one] => Ok(one),
            [] => Err(format!("no recording rule '{name}' of these files has such labels")),
            _ => Err(format!("{} recording rules of these files record '{name}'", fitting.len())),
        }
    }
}

impl Recording {
    /// What it records, with its labels, where the matchers of a selector hold.
    pub fn with_labels(&self, mut read: Typed, selector: &VectorSelector) -> Result<Typed, String> {
        for (label, value) in &self.labels {
            if matches!(read.label(label), Node::KeyLabel(_)) {
                return Err(format!("the recording rule changes the label '{label}'"));
            }
            read.extras.retain(|(known, _)| known != label);
            read.extras.push((label.clone(), Node::Text(value.clone())));
        }
        let own = |matcher: &&Matcher| matcher.name != "__name__" && !self.labels.contains_key(&matcher.name);
        for matcher in selector.matchers.matchers.iter().filter(own) {
            let text = match read.label(&matcher.name) {
                Node::NoLabel if matcher.is_match("") => continue,
                Node::NoLabel => return Err(format!("its label '{}' is never there", matcher.name)),
                text @ (Node::Label(_) | Node::KeyLabel(_)) => text,
                _ => return Err(format!("its label '{}' was changed", matcher.name)),
            };
            if let Some(condition) = condition("@", &matcher.op, &matcher.value)? {
                read = read.with(|node| Node::Where { input: Box::new(node), text: Box::new(text), condition });
            }
        }
        Ok(read)
    }
}
