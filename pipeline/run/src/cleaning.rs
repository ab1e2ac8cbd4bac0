//! What is checked of rows before they are taken, as it is written: `clean.rules`, and `--clean` of `backtest`.

use std::fmt;
use std::str::FromStr;

use tidewatch_flow::clean::{Action, ColumnRule, Range, Rules, Unit};
use tidewatch_model::table::{self, ColumnType, TABLES, Table};
use tidewatch_sql::suggestion;

/// Rules of cleaning, on top of those that the registry's units make.
///
/// Written as words, a rule each, separated by commas: `TABLE.COLUMN [unit=UNIT] [range=LEAST..MOST] [jump=NUMBER/s] [action=null|clamp|drop]`,
/// or `TABLE duplicates=drop`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cleaning(Vec<Entry>);

/// One rule.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    table: &'static Table,
    /// Of a column; else copies of rows are refused.
    column: Option<ColumnRule>,
}

impl Cleaning {
    /// What holds for a table.
    pub fn rules(&self, table: &Table) -> Rules {
        let mut rules = Rules::of(table);
        for entry in self.0.iter().filter(|entry| entry.table.name == table.name) {
            match &entry.column {
                Some(column) => rules.set(column.clone()),
                None => rules.duplicates = true,
            }
        }
        rules
    }
}

impl FromStr for Cleaning {
    type Err = String;
    fn from_str(text: &str) -> Result<Cleaning, String> {
        let mut entries: Vec<Entry> = Vec::new();
        for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let entry: Entry = text.parse().map_err(|error| format!("'{text}': {error}"))?;
            let target = entry.target();
            if entries.iter().any(|other| other.target() == target) {
                return Err(format!("'{target}' has two rules: expected one"));
            }
            entries.push(entry);
        }
        Ok(Cleaning(entries))
    }
}

impl fmt::Display for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl Entry {
    fn target(&self) -> String {
        match &self.column {
            Some(rule) => format!("{}.{}", self.table.name, rule.column),
            None => self.table.name.to_string(),
        }
    }
}

impl FromStr for Entry {
    type Err = String;
    fn from_str(text: &str) -> Result<Entry, String> {
        let mut words = text.split_whitespace();
        let target = words.next().filter(|word| !word.contains('=')).ok_or("expected TABLE.COLUMN or TABLE first")?;
        let (name, column) = target.split_once('.').map_or((target, None), |(name, column)| (name, Some(column)));
        let known = || TABLES.iter().filter(|table| !table.is_own()).map(|table| table.name);
        let table = table::find(name).filter(|table| known().any(|name| name == table.name));
        let table = table.ok_or_else(|| format!("unknown table '{name}'{}", suggestion(name, known())))?;
        let Some(column) = column else {
            return match words.collect::<Vec<_>>().as_slice() {
                ["duplicates=drop"] => Ok(Entry { table, column: None }),
                _ => Err("expected duplicates=drop, or TABLE.COLUMN".to_string()),
            };
        };
        column_rule(table, column, words).map(|rule| Entry { table, column: Some(rule) })
    }
}

fn column_rule<'a>(table: &Table, name: &str, words: impl Iterator<Item = &'a str>) -> Result<ColumnRule, String> {
    let is_number = |kind| matches!(kind, ColumnType::Int64 | ColumnType::Float64 | ColumnType::Float64WithNan);
    let numbers = || table.columns.iter().filter(|column| is_number(column.column_type) && !column.identity);
    let Some(column) = numbers().find(|column| column.name == name) else {
        return Err(match table.column(name) {
            Some(_) => format!(
                "'{name}' is no measured number: expected a column such as {}",
                numbers().next().map_or("", |column| column.name)
            ),
            None => format!(
                "unknown column '{name}' in table '{}'{}",
                table.name,
                suggestion(name, numbers().map(|column| column.name))
            ),
        });
    };
    let mut rule = ColumnRule::new(column, None);
    let mut action = None;
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("'{word}': expected name=value"))?;
        match (key, value) {
            ("unit", name) => {
                let fitting = || Unit::ALL.into_iter().filter(|(_, unit)| unit.fits(column));
                let found = fitting().find(|(known, _)| *known == name);
                rule.unit = Some(found.map(|(_, unit)| unit).ok_or_else(|| {
                    let names: Vec<&str> = fitting().map(|(name, _)| name).collect();
                    format!(
                        "{word}: expected one of {} for '{}', which is in {}",
                        names.join(", "),
                        column.name,
                        unit_of(column.unit)
                    )
                })?);
            }
            ("range", bounds) => {
                rule.range = Some(
                    range(bounds)
                        .ok_or_else(|| format!("{word}: expected such as range=-20..130, range=0.. or range=.."))?,
                )
            }
            ("jump", limit) => {
                rule.jump =
                    Some(per_second(limit).ok_or_else(|| format!("{word}: expected such as jump=20/s, /m or /h"))?)
            }
            ("action", "null") => action = Some(Action::Null),
            ("action", "clamp") => action = Some(Action::Clamp),
            ("action", "drop") => action = Some(Action::Drop),
            ("action", _) => return Err(format!("{word}: expected null, clamp or drop")),
            _ => return Err(format!("'{key}' is not one of unit, range, jump, action")),
        }
    }
    if rule.unit.is_none() && rule.range.is_none() && rule.jump.is_none() {
        return Err("expected unit=, range= or jump=".to_string());
    }
    if action.is_some() && rule.range.is_none() && rule.jump.is_none() {
        return Err("action= says what becomes of a value that range= or jump= calls impossible: expected one of them"
            .to_string());
    }
    rule.action = action.unwrap_or_default();
    Ok(rule)
}

fn unit_of(unit: &str) -> &str {
    if unit.is_empty() { "no unit" } else { unit }
}

/// `LEAST..MOST`; a side that is left out is open.
fn range(text: &str) -> Option<Range> {
    let (least, most) = text.split_once("..")?;
    let bound = |text: &str, open: f64| match text {
        "" => Some(open),
        text => text.parse().ok().filter(|number: &f64| number.is_finite()),
    };
    let range = Range { least: bound(least, f64::NEG_INFINITY)?, most: bound(most, f64::INFINITY)? };
    (range.least <= range.most).then_some(range)
}

/// `NUMBER/s`, `/m` or `/h`.
fn per_second(text: &str) -> Option<f64> {
    let (number, per) = text.split_once('/')?;
    let seconds = match per {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number / seconds).filter(|limit| limit.is_finite() && *limit > 0.0)
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target())?;
        let Some(rule) = &self.column else { return f.write_str(" duplicates=drop") };
        if let Some((name, _)) = Unit::ALL.into_iter().find(|(_, unit)| rule.unit == Some(*unit)) {
            write!(f, " unit={name}")?;
        }
        if let Some(range) = rule.range {
            let bound = |number: f64| if number.is_finite() { number.to_string() } else { String::new() };
            write!(f, " range={}..{}", bound(range.least), bound(range.most))?;
        }
        if let Some(limit) = rule.jump {
            write!(f, " jump={limit}/s")?;
        }
        if rule.range.is_none() && rule.jump.is_none() {
            return Ok(());
        }
        f.write_str(match rule.action {
            Action::Null => " action=null",
            Action::Clamp => " action=clamp",
            Action::Drop => " action=drop",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = "gpu.temperature_celsius range=-20..130 action=null,gpu.utilization_ratio unit=percent,\
                    gpu.power_watts unit=milli range=0.. jump=2000/s action=drop,gpu duplicates=drop,train_step.loss range=.. action=null";
        let cleaning: Cleaning = text.parse().unwrap();
        assert_eq!(cleaning.to_string(), text);
        assert_eq!(cleaning.to_string().parse::<Cleaning>().unwrap(), cleaning);
        assert_eq!("".parse::<Cleaning>().unwrap(), Cleaning::default());
        let minute: Cleaning = "gpu.power_watts jump=60/m".parse().unwrap();
        assert_eq!(minute.to_string(), "gpu.power_watts jump=1/s action=null");
    }

    #[test]
    fn faults_say_what_was_expected() {
        for (text, expected) in [
            ("range=1..2", "'range=1..2': expected TABLE.COLUMN or TABLE first"),
            ("gpus.power_watts range=1..2", "'gpus.power_watts range=1..2': unknown table 'gpus'; did you mean 'gpu'?"),
            ("alert_event.value range=1..2", "unknown table 'alert_event'"),
            ("gpu", "expected duplicates=drop, or TABLE.COLUMN"),
            ("gpu duplicates=keep", "expected duplicates=drop"),
            ("gpu.power range=1..2", "unknown column 'power' in table 'gpu'"),
            ("gpu.power_wats range=1..2", "did you mean 'power_watts'?"),
            ("gpu.gpu_name range=1..2", "'gpu_name' is no measured number: expected a column such as gpu_index"),
            ("serve.replica range=1..2", "is no measured number"),
            ("gpu.power_watts", "expected unit=, range= or jump="),
            ("gpu.power_watts range=2..1", "range=2..1: expected such as range=-20..130"),
            ("gpu.power_watts range=NaN..1", "range=NaN..1: expected such as"),
            ("gpu.power_watts jump=5", "jump=5: expected such as jump=20/s"),
            ("gpu.power_watts jump=-5/s", "jump=-5/s: expected such as"),
            ("gpu.power_watts unit=percent", "unit=percent: expected one of milli, micro, nano, kilo"),
            (
                "gpu.memory_used_bytes unit=milli",
                "expected one of kilo, mega, giga, kibi, mebi, gibi for 'memory_used_bytes', which is in bytes",
            ),
            ("gpu.power_watts unit=milli action=drop", "action= says what becomes of a value"),
            ("gpu.power_watts range=0.. action=cut", "action=cut: expected null, clamp or drop"),
            ("gpu.power_watts rang=0..", "'rang' is not one of unit, range, jump, action"),
            ("gpu.power_watts range=0..,gpu.power_watts jump=1/s", "'gpu.power_watts' has two rules: expected one"),
        ] {
            let error = text.parse::<Cleaning>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_rule_stands_before_what_the_unit_says() {
        let gpu = table::find("gpu").unwrap();
        let range_of = |text: &str| {
            let rules = text.parse::<Cleaning>().unwrap().rules(gpu);
            let rule = rules.columns.into_iter().find(|rule| rule.column == "temperature_celsius").unwrap();
            rule.range.unwrap()
        };
        assert_eq!(range_of(""), Range { least: -60.0, most: 150.0 });
        assert_eq!(range_of("gpu.temperature_celsius range=0..110"), Range { least: 0.0, most: 110.0 });
        assert_eq!(range_of("gpu.temperature_celsius unit=kelvin"), Range { least: -60.0, most: 150.0 });
        assert!(range_of("gpu.temperature_celsius range=..").is_open());
    }
}
