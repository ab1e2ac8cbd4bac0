//! Matchers over labels, as Alertmanager and amtool write them: `name="value"`, `!=`, `=~`, `!~`.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};
use tidewatch_model::alert::Labels;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`: the whole value matches the regular expression.
    Regex,
    /// `!~`
    NotRegex,
}

/// One condition on one label. A label that is missing counts as empty.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub value: String,
    regex: Option<Regex>,
}

/// What is wrong with a matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("matcher '{text}': {problem}")]
pub struct MatcherError {
    text: String,
    problem: String,
}

impl Matcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// A regular expression that is none, or a name that no label has.
    pub fn new(name: &str, comparison: Comparison, value: &str) -> Result<Matcher, MatcherError> {
        let wrong = |problem: String| MatcherError { text: format!("{name}{comparison}{value}"), problem };
        if name.is_empty() {
            return Err(wrong("expected the name of a label before the operator".to_string()));
        }
        let regex = match comparison {
            Comparison::Regex | Comparison::NotRegex => {
                let whole = Regex::new(&format!("^(?s:{value})$"));
                Some(whole.map_err(|error| {
                    let text = error.to_string();
                    wrong(format!("not a regular expression: {}", text.lines().last().unwrap_or_default()))
                })?)
            }
            Comparison::Equal | Comparison::NotEqual => None,
        };
        Ok(Matcher { name: name.to_string(), comparison, value: value.to_string(), regex })
    }

    /// Whether these labels pass.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).map_or("", String::as_str))
    }

    fn matches_value(&self, value: &str) -> bool {
        let is_match = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.comparison {
            Comparison::Equal => value == self.value,
            Comparison::NotEqual => value != self.value,
            Comparison::Regex => is_match(),
            Comparison::NotRegex => !is_match(),
        }
    }

    /// Whether a label that is missing passes: a silence of such matchers alone would silence everything.
    pub fn matches_nothing(&self) -> bool {
        self.matches_value("")
    }

    /// Reads several: `{a="b", c=~"d.*"}`, with or without the braces.
    ///
    /// # Errors
    /// The first that is none.
    ///
    /// ```
    /// use tidewatch_flow::alerting::Matcher;
    /// let matchers = Matcher::parse_all(r#"{severity="critical", host!~"test-.*",team=ops}"#).unwrap();
    /// let written: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    /// assert_eq!(written, [r#"severity="critical""#, r#"host!~"test-.*""#, r#"team="ops""#]);
    /// assert!(Matcher::parse_all("severity").is_err());
    /// ```
    pub fn parse_all(text: &str) -> Result<Vec<Matcher>, MatcherError> {
        let mut inner = text.trim();
        if let Some(rest) = inner.strip_prefix('{') {
            inner = rest.strip_suffix('}').ok_or_else(|| MatcherError {
                text: text.to_string(),
                problem: "expected '}' at its end".to_string(),
            })?;
        }
        split(inner).into_iter().filter(|part| !part.trim().is_empty()).map(str::parse).collect()
    }
}

/// Parts between commas that are not in quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (vec![], 0, false, false);
    for (index, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Matcher, MatcherError> {
        let wrong = |problem: &str| MatcherError { text: text.trim().to_string(), problem: problem.to_string() };
        let at = text.find(['=', '!']).ok_or_else(|| wrong("expected name=value, with =, !=, =~ or !~"))?;
        let (name, rest) = text.split_at(at);
        let (comparison, value) = [
            ("=~", Comparison::Regex),
            ("!~", Comparison::NotRegex),
            ("!=", Comparison::NotEqual),
            ("=", Comparison::Equal),
        ]
        .into_iter()
        .find_map(|(sign, comparison)| rest.strip_prefix(sign).map(|value| (comparison, value.trim())))
        .ok_or_else(|| wrong("expected one of =, !=, =~, !~"))?;
        let name = unquoted(name.trim()).ok_or_else(|| wrong("the quotes around its name do not close"))?;
        let value = unquoted(value).ok_or_else(|| wrong("the quotes around its value do not close"))?;
        Matcher::new(&name, comparison, &value)
    }
}

/// A text without its quotes and escapes; as it is when it has no quotes.
fn unquoted(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        return if text.contains('"') { None } else { Some(text.to_string()) };
    };
    let inner = inner.strip_suffix('"')?;
    let mut out = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => match letters.next()? {
                'n' => out.push('\n'),
                escaped @ ('"' | '\\') => out.push(escaped),
                // A regular expression: \d and its kind.
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
    Some(out)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Regex => "=~",
            Comparison::NotRegex => "!~",
        })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(f, "{}{}\"{value}\"", self.name, self.comparison)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.comparison, &self.value) == (&other.name, other.comparison, &other.value)
    }
}

/// The form of Alertmanager's API.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    value: String,
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

impl Serialize for Matcher {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_regex = matches!(self.comparison, Comparison::Regex | Comparison::NotRegex);
        let is_equal = matches!(self.comparison, Comparison::Equal | Comparison::Regex);
        Wire { name: self.name.clone(), value: self.value.clone(), is_regex, is_equal }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Matcher, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let comparison = match (wire.is_regex, wire.is_equal) {
            (false, true) => Comparison::Equal,
            (false, false) => Comparison::NotEqual,
            (true, true) => Comparison::Regex,
            (true, false) => Comparison::NotRegex,
        };
        Matcher::new(&wire.name, comparison, &wire.value).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::labels;
    use super::*;

    #[test]
    fn values_are_matched_whole_and_what_is_missing_is_empty() {
        let n1 = labels(&[("host", "n1")]);
        for (text, expected) in [
            ("host=n1", true),
            ("host=\"n\"", false),
            ("host=~n.", true),
            ("host=~n", false),
            ("host=~\"n1|n2\"", true),
            ("host!~\"n1|n2\"", false),
            ("host!=n1", false),
            ("team=\"\"", true),
            ("team!=ops", true),
            ("team=~.*", true),
            ("team=~.+", false),
        ] {
            assert_eq!(text.parse::<Matcher>().unwrap().matches(&n1), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let value = "a \"quoted\\ text\", with a comma\nand a line";
        let matcher = Matcher::new("note", Comparison::NotEqual, value).unwrap();
        assert_eq!(Matcher::parse_all(&format!("{{{matcher}}}")).unwrap(), std::slice::from_ref(&matcher));
        let wire = serde_json::to_string(&matcher).unwrap();
        assert!(wire.contains("\"isRegex\":false,\"isEqual\":false"), "{wire}");
        assert_eq!(serde_json::from_str::<Matcher>(&wire).unwrap(), matcher);
        // Older clients know no isEqual.
        let old: Matcher = serde_json::from_str(r#"{"name":"a","value":"b","isRegex":true}"#).unwrap();
        assert_eq!(old.to_string(), "a=~\"b\"");
    }

    #[test]
    fn what_is_no_matcher_is_named() {
        for (text, expected) in [
            ("host", "matcher 'host': expected name=value"),
            ("=x", "expected the name of a label"),
            ("host=\"x", "the quotes around its value do not close"),
            ("host=~\"(\"", "not a regular expression"),
            ("{host=x", "expected '}'"),
            ("host!x", "expected one of ="),
        ] {
            let error = Matcher::parse_all(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
