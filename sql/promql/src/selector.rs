//! Which series: a metric's name and matchers of labels, as conditions of SQL.

use promql_parser::label::{MatchOp, Matchers};
use regex::Regex;

use crate::text::quoted;

/// A metric and conditions on its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The metric's name.
    pub name: String,
    /// Conditions on `labels`.
    pub matchers: Vec<String>,
    /// Labels that must have these texts: those of `=`.
    pub equal: Vec<(String, String)>,
}

impl Selector {
    /// Reads a selector.
    pub fn read(name: Option<&str>, matchers: &Matchers) -> Result<Selector, String> {
        if !matchers.or_matchers.is_empty() {
            return Err("'or' between matchers".to_string());
        }
        let mut found = Selector { name: name.unwrap_or_default().to_string(), matchers: vec![], equal: vec![] };
        for matcher in &matchers.matchers {
            if matcher.name == "__name__" {
                match &matcher.op {
                    MatchOp::Equal if found.name.is_empty() || found.name == matcher.value => {
                        found.name.clone_from(&matcher.value)
                    }
                    _ => return Err(
                        "the metric's name is matched: expected one name, since series of two would be taken for one"
                            .to_string(),
                    ),
                }
                continue;
            }
            if matches!(matcher.op, MatchOp::Equal) && !matcher.value.is_empty() {
                found.equal.push((matcher.name.clone(), matcher.value.clone()));
            }
            found.matchers.extend(condition(
                &format!("labels[{}]", quoted(&matcher.name)),
                &matcher.op,
                &matcher.value,
            )?);
        }
        match found.name.as_str() {
            "" => Err("a selector without a metric's name".to_string()),
            "ALERTS" | "ALERTS_FOR_STATE" => Err("alerts of Prometheus itself: no rule reads alerts".to_string()),
            _ => Ok(found),
        }
    }

    /// All of it.
    pub fn conditions(&self) -> Vec<String> {
        std::iter::once(format!("name = {}", quoted(&self.name))).chain(self.matchers.iter().cloned()).collect()
    }
}

/// A matcher as a condition on a text that is NULL where the label is missing, which PromQL takes for an empty one; `None` when it always
/// holds.
pub fn condition(text: &str, operator: &MatchOp, value: &str) -> Result<Option<String>, String> {
    Ok(match operator {
        MatchOp::Equal if value.is_empty() => Some(format!("{text} IS NULL")),
        MatchOp::Equal => Some(format!("{text} = {}", quoted(value))),
        MatchOp::NotEqual if value.is_empty() => Some(format!("{text} IS NOT NULL")),
        MatchOp::NotEqual => Some(format!("({text} IS NULL OR {text} <> {})", quoted(value))),
        MatchOp::Re(_) | MatchOp::NotRe(_) => regex_condition(text, matches!(operator, MatchOp::Re(_)), value)?,
    })
}

fn regex_condition(text: &str, positive: bool, value: &str) -> Result<Option<String>, String> {
    let anchored = format!("^(?:{value})$");
    let regex = Regex::new(&anchored).map_err(|_| format!("the regular expression {value:?} can't be read"))?;
    let words: Vec<&str> = value.split('|').collect();
    let is_plain = |word: &&str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-/:, ".contains(letter))
    };
    let missing = regex.is_match("") == positive;
    let of_text = match (value, positive) {
        (".*", true) => return Ok(None),
        (".*", false) => return Ok(Some("false".to_string())),
        (".+", _) => return Ok(Some(format!("{text} IS {}NULL", if positive { "NOT " } else { "" }))),
        _ if words.iter().all(is_plain) => {
            let list: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            match (list.as_slice(), positive) {
                ([word], true) => format!("{text} = {word}"),
                ([word], false) => format!("{text} <> {word}"),
                (_, true) => format!("{text} IN ({})", list.join(", ")),
                (_, false) => format!("{text} NOT IN ({})", list.join(", ")),
            }
        }
        _ => format!("{text} {} {}", if positive { "~" } else { "!~" }, quoted(&anchored)),
    };
    Ok(Some(if missing { format!("({text} IS NULL OR {of_text})") } else { of_text }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use promql_parser::parser::{Expr, parse};

    use super::*;

    fn check(selector: &str) -> String {
        let Expr::VectorSelector(found) = parse(selector).unwrap() else { panic!("{selector}") };
        match Selector::read(found.name.as_deref(), &found.matchers) {
            Ok(selector) => selector.conditions().join(" AND "),
            Err(reason) => format!("refused: {reason}"),
        }
    }

    #[test]
    fn a_label_that_is_missing_is_an_empty_one() {
        assert_eq!(
            check("x{a='b',c!='d'}"),
            "name = 'x' AND labels['a'] = 'b' AND (labels['c'] IS NULL OR labels['c'] <> 'd')"
        );
        assert_eq!(check("x{a='',c!=''}"), "name = 'x' AND labels['a'] IS NULL AND labels['c'] IS NOT NULL");
        assert_eq!(check("x{a=~'b|c'}"), "name = 'x' AND labels['a'] IN ('b', 'c')");
        assert_eq!(check("x{a!~'b|c'}"), "name = 'x' AND (labels['a'] IS NULL OR labels['a'] NOT IN ('b', 'c'))");
        assert_eq!(check("x{a=~'b.*',c!~'.+'}"), "name = 'x' AND labels['a'] ~ '^(?:b.*)$' AND labels['c'] IS NULL");
        assert_eq!(
            check("x{a=~'.*',c=~'(b.+)?'}"),
            "name = 'x' AND (labels['c'] IS NULL OR labels['c'] ~ '^(?:(b.+)?)$')"
        );
        assert_eq!(check("x{a!~'(b.+)?'}"), "name = 'x' AND labels['a'] !~ '^(?:(b.+)?)$'");
    }

    #[test]
    fn series_of_two_metrics_are_not_taken_for_one() {
        assert!(check("{__name__=~'a|b'}").starts_with("refused: the metric's name is matched"));
        assert_eq!(check("{__name__='a'}"), "name = 'a'");
        assert!(check("{job='a'}").starts_with("refused: a selector without"));
        assert!(check("ALERTS{alertname='a'}").starts_with("refused: alerts of Prometheus"));
    }
}
