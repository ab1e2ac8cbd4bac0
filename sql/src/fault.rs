//! What is wrong with a rule, and where: `file:line:column`, what was found, what was expected, what was perhaps meant.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Location as ParserLocation;

/// A place in a rule file; line and column count from one, and are zero where the place is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Location {
    /// The file, as it was named.
    pub file: String,
    /// Its line.
    pub line: u64,
    /// Its column, in characters.
    pub column: u64,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The rule does not run; the others do.
    Error,
    /// The rule runs, and may not do what its author expects.
    Warning,
    /// Something that was assumed.
    Note,
}

/// One remark about one place in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Error, warning or note.
    pub level: Level,
    /// Where.
    pub location: Location,
    /// The rule that it concerns, when its name could be read.
    pub rule: Option<String>,
    /// What is wrong, what was expected, and the nearest accepted word.
    pub message: String,
}

impl Location {
    /// A place without line and column: the file as a whole.
    pub fn of_file(file: &str) -> Self {
        Location { file: file.to_string(), line: 0, column: 0 }
    }

    pub(crate) fn new(file: &str, at: ParserLocation) -> Self {
        Location { file: file.to_string(), line: at.line, column: at.column }
    }
}

impl Fault {
    pub(crate) fn error(location: Location, message: impl Into<String>) -> Self {
        Fault { level: Level::Error, location, rule: None, message: message.into() }
    }

    pub(crate) fn warning(location: Location, message: impl Into<String>) -> Self {
        Fault { level: Level::Warning, location, rule: None, message: message.into() }
    }

    pub(crate) fn note(location: Location, message: impl Into<String>) -> Self {
        Fault { level: Level::Note, location, rule: None, message: message.into() }
    }

    pub(crate) fn of_rule(mut self, name: &str) -> Self {
        self.rule = Some(name.to_string());
        self
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.location, self.level, self.message)?;
        match &self.rule {
            Some(rule) => write!(f, " [{rule}]"),
            None => Ok(()),
        }
    }
}

/// `; did you mean 'x'?` for the accepted word nearest to what was written, or nothing when none is near.
pub fn suggestion<'a>(found: &str, accepted: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = accepted
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&found.to_lowercase(), word), word))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, word)) if distance <= 1 + word.len() / 3 => format!("; did you mean '{word}'?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        assert_eq!(suggestion("serverity", ["severity", "summary"]), "; did you mean 'severity'?");
        assert_eq!(suggestion("zzz", ["severity", "summary"]), "");
    }
}
