//! YAML with places: every node knows its line and column, every mapping which of its keys nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use tidewatch_model::Span;
use tidewatch_sql::Level;

/// Something about one place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// An error, or a warning: what was left out because we can't do it.
    pub level: Level,
    /// What.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.level == Level::Error { "error" } else { "warning" };
        write!(f, "{}:{}: {level}: {}", self.line, self.column, self.message)
    }
}

/// What was found on the way.
pub type Faults = Rc<RefCell<Vec<Fault>>>;

/// A node, and the way to it: `route.routes[2]`.
#[derive(Clone)]
pub struct Node<'a> {
    yaml: &'a MarkedYaml<'a>,
    /// The way to it.
    pub path: String,
    faults: Faults,
}

/// A mapping of which each key is asked for once.
pub struct Fields<'a> {
    node: Node<'a>,
    asked: BTreeSet<&'static str>,
}

/// Reads a document and hands its root over.
pub fn read<T>(text: &str, take: impl FnOnce(&Node) -> Option<T>) -> (Option<T>, Vec<Fault>) {
    let faults = Faults::default();
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            let message = format!("not YAML: {}", error.info());
            return (None, vec![Fault { line, column, level: Level::Error, message }]);
        }
    };
    let Some(root) = documents.first() else {
        let message = "it is empty: expected route and receivers".to_string();
        return (None, vec![Fault { line: 1, column: 1, level: Level::Error, message }]);
    };
    let taken = take(&Node { yaml: root, path: String::new(), faults: faults.clone() });
    let found = faults.borrow().clone();
    (taken, found)
}

impl<'a> Node<'a> {
    fn say(&self, level: Level, message: String) {
        let start = self.yaml.span.start;
        self.faults.borrow_mut().push(Fault { line: start.line(), column: start.col() + 1, level, message });
    }

    fn named(&self, message: impl fmt::Display) -> String {
        if self.path.is_empty() { message.to_string() } else { format!("{}: {message}", self.path) }
    }

    /// An error at this place.
    pub fn error(&self, message: impl fmt::Display) {
        self.say(Level::Error, self.named(message));
    }

    /// What is left out.
    pub fn warning(&self, message: impl fmt::Display) {
        self.say(Level::Warning, self.named(message));
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.yaml.data, YamlData::Value(Scalar::Null))
    }

    /// A mapping.
    pub fn fields(&self) -> Option<Fields<'a>> {
        match &self.yaml.data {
            YamlData::Mapping(_) => Some(Fields { node: self.clone(), asked: BTreeSet::new() }),
            _ => {
                self.error("expected a mapping of names and values");
                None
            }
        }
    }

    /// A list.
    pub fn list(&self) -> Vec<Node<'a>> {
        match &self.yaml.data {
            YamlData::Sequence(nodes) => nodes
                .iter()
                .enumerate()
                .map(|(index, yaml)| Node {
                    yaml,
                    path: format!("{}[{index}]", self.path),
                    faults: self.faults.clone(),
                })
                .collect(),
            YamlData::Value(Scalar::Null) => vec![],
            _ => {
                self.error("expected a list");
                vec![]
            }
        }
    }

    /// A text; numbers and booleans are texts too.
    pub fn text(&self) -> Option<String> {
        match &self.yaml.data {
            YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
            YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
            YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
            YamlData::Value(Scalar::Boolean(value)) => Some(value.to_string()),
            _ => {
                self.error("expected a text");
                None
            }
        }
    }

    /// True or false.
    pub fn bool(&self) -> Option<bool> {
        match &self.yaml.data {
            YamlData::Value(Scalar::Boolean(value)) => Some(*value),
            _ => {
                self.error("expected true or false");
                None
            }
        }
    }

    /// What a text means; its error is said here.
    pub fn parse<T, E: fmt::Display>(&self, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text()?;
        read(&text).map_err(|error| self.error(error)).ok()
    }

    /// A duration as Prometheus writes it.
    pub fn span(&self) -> Option<Span> {
        self.parse(str::parse::<Span>)
    }

    /// Names and values of a mapping, in order.
    pub fn entries(&self) -> Vec<(String, Node<'a>)> {
        match &self.yaml.data {
            YamlData::Mapping(entries) => entries
                .iter()
                .filter_map(|(key, yaml)| {
                    let key = Node { yaml: key, path: self.path.clone(), faults: self.faults.clone() }.text()?;
                    let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
                    Some((key, Node { yaml, path, faults: self.faults.clone() }))
                })
                .collect(),
            _ => {
                self.error("expected a mapping of names and values");
                vec![]
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// The value of a key.
    pub fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.asked.insert(key);
        self.node.entries().into_iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Keys that we know and can't do: each is a warning where it is there.
    pub fn cannot(&mut self, keys: &[&'static str]) {
        for key in keys {
            if let Some(node) = self.get(key) {
                node.warning("is not supported and left out");
            }
        }
    }

    /// Keys that we know and can't do without: each is an error where it is there.
    pub fn must_not(&mut self, keys: &[&'static str]) {
        for key in keys {
            if let Some(node) = self.get(key) {
                node.error("is not supported: without it nothing would arrive");
            }
        }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.node.entries().iter().any(|(name, _)| name == key)
    }

    /// The node itself.
    pub fn node(&self) -> &Node<'a> {
        &self.node
    }

    /// Every key was asked for; others are errors, with what was perhaps meant.
    pub fn finish(self) {
        for (key, node) in self.node.entries() {
            if !self.asked.contains(key.as_str()) {
                let near = tidewatch_sql::suggestion(&key, self.asked.iter().copied());
                node.error(format!("unknown field{near}"));
            }
        }
    }
}
