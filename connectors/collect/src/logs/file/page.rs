//! TOML with places: every value knows where it stands, every table which of its keys nobody asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use toml::de::{DeTable, DeValue};

use crate::logs::LogFault;

/// Bytes of a compiled pattern.
const REGEX_BYTES: usize = 4 << 20;

/// Where things stand in the text, and what was wrong with them.
pub struct Page<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) faults: RefCell<Vec<(usize, String)>>,
}

impl Page<'_> {
    /// Something wrong at a place.
    pub fn fault(&self, offset: usize, message: impl Into<String>) {
        self.faults.borrow_mut().push((offset, message.into()));
    }

    /// All of it, in the order of the text.
    pub fn faults(&self) -> Vec<LogFault> {
        let mut faults = self.faults.borrow().clone();
        faults.sort_by_key(|(offset, _)| *offset);
        let shown = |(offset, message): (usize, String)| {
            let before = &self.text[..offset.min(self.text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
            LogFault(format!("{}:{line}:{column}: {message}", self.name))
        };
        faults.into_iter().map(shown).collect()
    }
}

/// One value and where it stands.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) at: usize,
    pub(super) key: &'static str,
    pub(super) page: &'a Page<'a>,
}

/// One table, of which each key is asked for once.
pub struct Fields<'a> {
    pub(super) table: &'a DeTable<'a>,
    pub(super) at: usize,
    pub(super) asked: BTreeSet<&'static str>,
    pub(super) page: &'a Page<'a>,
}

impl<'a> Fields<'a> {
    /// A key's value.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.insert(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value { value: value.get_ref(), at: value.span().start, key, page: self.page })
    }

    /// Whether the key is there: when it gave nothing, it was told why.
    pub fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// One of several words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let value = self.take(key)?;
        let text = value.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            value.fault(format!("'{text}': expected {}", all.join(", ")));
        }
        found
    }

    /// What a text stands for.
    pub fn parsed<T: FromStr<Err = String>>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        value.text()?.parse().map_err(|problem: String| value.fault(problem)).ok()
    }

    /// Keys that nobody asked for are faults.
    pub fn end(self) {
        let known = self.asked.iter().copied().collect::<Vec<_>>().join(", ");
        for (name, _) in self.table.iter().filter(|(name, _)| !self.asked.contains(name.get_ref().as_ref())) {
            self.page.fault(name.span().start, format!("unknown key '{}': expected of {known}", name.get_ref()));
        }
    }
}

impl<'a> Value<'a> {
    /// Something wrong with it.
    pub fn fault(&self, message: impl AsRef<str>) {
        self.page.fault(self.at, format!("{}: {}", self.key, message.as_ref()));
    }

    /// A string.
    pub fn text(self) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.fault("expected a string");
                None
            }
        }
    }

    /// The value, if it is good.
    pub fn checked<T>(self, value: Option<T>, good: impl Fn(&T) -> bool, expected: &str) -> Option<T> {
        let value = value?;
        if !good(&value) {
            self.fault(expected);
            return None;
        }
        Some(value)
    }

    /// A list of strings.
    pub fn texts(self) -> Vec<String> {
        let DeValue::Array(items) = self.value else {
            self.fault("expected a list of strings");
            return vec![];
        };
        let text = |item: &'a toml::Spanned<DeValue<'a>>| {
            Value { value: item.get_ref(), at: item.span().start, ..self }.text()
        };
        items.iter().filter_map(text).collect()
    }

    /// True or false.
    pub fn flag(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.fault("expected true or false");
                None
            }
        }
    }

    /// A finite number.
    pub fn number(self) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.fault("expected a number");
        }
        number
    }

    /// A pattern.
    pub fn regex(self) -> Option<Regex> {
        let text = self.text()?;
        let built = RegexBuilder::new(&text).size_limit(REGEX_BYTES).build();
        built.map_err(|error| self.fault(format!("'{text}' is not a pattern: {}", in_one_line(&error)))).ok()
    }

    /// A table.
    pub fn table(self) -> Option<Fields<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Fields { table, at: self.at, asked: BTreeSet::new(), page: self.page }),
            _ => {
                self.fault("expected a table");
                None
            }
        }
    }

    /// A list of tables.
    pub fn tables(self) -> Vec<Fields<'a>> {
        let DeValue::Array(items) = self.value else {
            self.fault(format!("expected [[{}]]", self.key));
            return vec![];
        };
        let table = |item: &'a toml::Spanned<DeValue<'a>>| {
            Value { value: item.get_ref(), at: item.span().start, ..self }.table()
        };
        items.iter().filter_map(table).collect()
    }

    /// Names and texts; numbers are texts too.
    pub fn pairs(self) -> BTreeMap<String, String> {
        let Some(fields) = self.table() else { return BTreeMap::new() };
        let text = |value: Value<'_>| match value.value {
            DeValue::Integer(number) => Some(number.as_str().to_string()),
            _ => value.text(),
        };
        let pair = |(name, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            let value = Value { value: value.get_ref(), at: value.span().start, ..self };
            Some((name.to_string(), text(value)?))
        };
        fields.table.iter().filter_map(pair).collect()
    }

    /// Names and numbers.
    pub fn numbers(self) -> BTreeMap<String, f64> {
        let Some(fields) = self.table() else { return BTreeMap::new() };
        let pair = |(name, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Some((name.to_string(), Value { value: value.get_ref(), at: value.span().start, ..self }.number()?))
        };
        fields.table.iter().filter_map(pair).collect()
    }
}

/// The last line of what the library says names the fault; those before draw it.
fn in_one_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
}
