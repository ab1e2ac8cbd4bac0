//! Numbers that rules name: `setting('gpu_overheating_celsius')` stands for a number of the dimension table `settings`, so that a site
//! changes a threshold in one place and not in a copy of the rule. They are put in before a rule is parsed: it costs what a literal costs.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Float64Type;
use arrow::error::ArrowError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};
use std::sync::Arc;
use tidewatch_model::table;

use crate::dimension::Dimensions;
use crate::fault::{Fault, Location, suggestion};

/// What the binary brings: name, value, unit, meaning.
const BUNDLED: &str = include_str!("../rules/settings.csv");

/// The table's name.
pub const TABLE: &str = "settings";

/// Settings by name, each as it is written in SQL.
#[derive(Debug, Clone, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// The bundled ones, and over them those of the table.
    pub fn of(dimensions: &Dimensions) -> Settings {
        let mut settings: BTreeMap<String, String> =
            lines().map(|[name, value, ..]| (name.to_string(), value.to_string())).collect();
        if let Some(rows) = dimensions.rows(TABLE) {
            let set = (0..rows.num_rows()).filter_map(|row| set_by(rows, row));
            for (name, value) in set {
                // Others stay as they are written.
                if settings.get(name).and_then(|text| text.parse().ok()) != Some(value) {
                    // With a decimal point, so that nothing is divided as whole numbers are.
                    settings.insert(name.to_string(), format!("{value:?}"));
                }
            }
        }
        Settings(settings)
    }

    /// The same tokens with numbers in the place of settings.
    ///
    /// # Errors
    /// A name that nobody set.
    pub(crate) fn put_in(&self, file: &str, tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, Fault> {
        let mut put = Vec::with_capacity(tokens.len());
        let mut left = tokens;
        while let Some((first, rest)) = left.split_first() {
            let Some((name, at, after)) = named(left) else {
                put.push(first.clone());
                left = rest;
                continue;
            };
            let Some(value) = self.0.get(name) else {
                let near = suggestion(name, self.0.keys().map(String::as_str));
                let at = Location::new(file, at.span.start);
                return Err(Fault::error(
                    at,
                    format!("unknown setting '{name}'{near}: expected a row of the table settings"),
                ));
            };
            // In brackets, for the sign.
            let sign = value.starts_with('-').then_some(Token::Minus);
            let number = Token::Number(value.trim_start_matches('-').to_string(), false);
            let tokens = [Some(Token::LParen), sign, Some(number), Some(Token::RParen)];
            put.extend(tokens.into_iter().flatten().map(|token| TokenWithSpan { token, span: first.span }));
            left = &left[after..];
        }
        Ok(put)
    }
}

/// `setting('NAME')` at the beginning: the name, where it stands, and how many tokens that are.
fn named(tokens: &[TokenWithSpan]) -> Option<(&str, &TokenWithSpan, usize)> {
    let is_blank =
        |token: &Token| matches!(token, Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab));
    let mut words = tokens.iter().enumerate().filter(|(_, token)| !is_blank(&token.token));
    let (Some((0, first)), Some((_, open)), Some((_, name)), Some((end, close))) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    match (&first.token, &open.token, &name.token, &close.token) {
        (Token::Word(word), Token::LParen, Token::SingleQuotedString(text), Token::RParen)
            if word.value.eq_ignore_ascii_case("setting") =>
        {
            Some((text, name, end + 1))
        }
        _ => None,
    }
}

/// The bundled lines, without the header.
fn lines() -> impl Iterator<Item = [&'static str; 4]> {
    BUNDLED.lines().skip(1).filter_map(|line| {
        let mut fields = line.splitn(4, ',');
        Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])
    })
}

/// The bundled settings as rows of the table.
pub(crate) fn rows() -> Option<RecordBatch> {
    let schema = table::find_dimension(TABLE)?.schema();
    let text = |place: usize| Arc::new(StringArray::from_iter(lines().map(move |fields| Some(fields[place]))));
    let values = Arc::new(lines().map(|fields| fields[1].parse().ok()).collect::<Float64Array>());
    RecordBatch::try_new(schema, vec![text(0), values, text(2), text(3)]).ok()
}

/// What a row of the table sets; `None` without a name or a number.
fn set_by(rows: &RecordBatch, row: usize) -> Option<(&str, f64)> {
    let names = rows.column_by_name("name")?.as_string_opt::<i32>()?;
    let values = rows.column_by_name("value")?.as_primitive_opt::<Float64Type>()?;
    let is_set = names.is_valid(row) && values.is_valid(row) && values.value(row).is_finite();
    is_set.then(|| (names.value(row), values.value(row)))
}

/// A site's rows, and the bundled ones that they leave as they are: the table says what is in force.
///
/// # Errors
/// Columns that are not the table's.
pub(crate) fn in_force(own: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(bundled) = rows() else { return Ok(own.clone()) };
    // Of a name that is there twice the last row counts.
    let set: BTreeMap<&str, usize> = (0..own.num_rows()).filter_map(|row| Some((set_by(own, row)?.0, row))).collect();
    let left = lines().map(|[name, ..]| Some(!set.contains_key(name))).collect();
    let counts = |row: usize| set_by(own, row).is_some_and(|(name, _)| set.get(name) == Some(&row));
    let own_rows = (0..own.num_rows()).map(|row| Some(counts(row))).collect();
    concat_batches(&own.schema(), [&filter_record_batch(own, &own_rows)?, &filter_record_batch(&bundled, &left)?])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    use crate::compile::{Compiler, Loaded};

    #[test]
    fn every_bundled_line_is_a_setting_that_a_rule_names_once() {
        let names: Vec<&str> = lines().map(|[name, ..]| name).collect();
        assert_eq!(BUNDLED.lines().count(), names.len() + 1, "name,value,unit,meaning");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "each once");
        assert!(names.is_sorted());
        let rules: String = ["rules", "pack"]
            .iter()
            .map(|folder| sql_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)))
            .collect();
        for [name, value, unit, meaning] in lines() {
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite) && !meaning.is_empty(), "{name} {value} {unit}");
            assert!(rules.contains(&format!("setting('{name}')")), "no rule names {name}");
        }
        assert_eq!(rows().unwrap().num_rows(), names.len());
    }

    /// The text of all rules below a folder.
    fn sql_of(folder: &Path) -> String {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: std::path::PathBuf| match path.is_dir() {
            true => sql_of(&path),
            false if path.extension().is_some_and(|extension| extension == "sql") => {
                std::fs::read_to_string(path).unwrap()
            }
            false => String::new(),
        };
        entries.map(text).collect()
    }

    fn load(dimensions: &Dimensions, sql: &str) -> Loaded {
        let mut loaded = Loaded::default();
        Compiler::with(dimensions).unwrap().load("a.sql", sql, &mut loaded);
        loaded
    }

    #[test]
    fn a_sites_own_number_takes_the_place_of_the_bundled_one() {
        let mut dimensions = Dimensions::default();
        let rows = rows().unwrap();
        let own = RecordBatch::try_new(
            rows.schema(),
            vec![
                Arc::new(StringArray::from(vec![Some("own_limit"), Some("unset"), None])),
                Arc::new(Float64Array::from(vec![Some(-2.5), None, Some(1.0)])),
                Arc::new(StringArray::from(vec![Some(""); 3])),
                Arc::new(StringArray::from(vec![Some(""); 3])),
            ],
        );
        dimensions.set(TABLE, own.unwrap()).unwrap();
        let table = dimensions.rows(TABLE).unwrap();
        assert_eq!(set_by(table, 0), Some(("own_limit", -2.5)), "the table says what is in force");
        assert_eq!(table.num_rows(), rows.num_rows() + 1);
        let rule =
            |condition: &str| format!("CREATE ALERT a AS SELECT host, load1 FROM host WHERE load1 > {condition};");
        let version = |condition: &str| {
            let loaded = load(&dimensions, &rule(condition));
            assert!(
                loaded.faults.iter().all(|fault| fault.rule.is_none()) && !loaded.has_errors(),
                "{:?}",
                loaded.faults
            );
            loaded.rules[0].rule.version.clone()
        };
        assert_eq!(version("setting('own_limit')"), version("(-2.5)"), "it is the number");
        assert_eq!(version("SETTING ( 'own_limit' )"), version("(-2.5)"));
        assert_ne!(version("setting('own_limit')"), version("(-2.6)"));
        let bundled = lines().next().unwrap();
        assert_eq!(
            version(&format!("setting('{}')", bundled[0])),
            version(&format!("({})", bundled[1])),
            "others stay"
        );
        let loaded = load(&dimensions, &rule("setting('own_limits')"));
        let said = loaded.faults[0].to_string();
        assert!(
            said.starts_with("a.sql:1:") && said.contains("unknown setting 'own_limits'; did you mean 'own_limit'"),
            "{said}"
        );
        assert!(load(&dimensions, &rule("setting('unset')")).has_errors(), "a row without a value sets nothing");
    }
}
