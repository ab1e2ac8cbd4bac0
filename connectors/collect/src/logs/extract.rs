//! What a line says, as a row of `log` and rows of other tables.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};
use tidewatch_model::limits::{FUTURE_SKEW, LATE_ROWS};
use tidewatch_model::table::{Column, ColumnType, TIME_COLUMN, Table};
use tidewatch_model::{Timestamp, table};

use super::level::Level;
use super::options::{Extract, Format, Keep, Keys, LogSource};
use super::presets::{State, pass, step_of};
use super::when::{Zone, time_by, time_of, time_of_value};
use crate::rows::{Cell, Rows, RowsError};

/// Fields of one line; the rest is left out, and counted.
const FIELDS: usize = 100;

/// One message, wherever it comes from.
#[derive(Debug)]
pub struct Message<'a> {
    /// The file, or the unit.
    pub source: &'a str,
    /// Of this file, besides those of its source.
    pub labels: &'a [(String, String)],
    /// What it says.
    pub text: &'a str,
    /// A terminal would have written the next over it.
    pub transient: bool,
    /// When it was read first.
    pub read_at: Timestamp,
    /// What whoever brought it knows of it.
    pub known: Option<Known>,
}

/// What a journal knows of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// When it was written.
    pub ts: Option<Timestamp>,
    /// How grave it is.
    pub level: Option<Level>,
    /// What else.
    pub fields: Vec<(String, String)>,
}

/// What was not as it should be, how often, and an example of each.
#[derive(Debug, Default)]
pub struct Remarks(BTreeMap<&'static str, (usize, String)>);

impl Remarks {
    /// Once more.
    pub fn add(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        self.0.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    /// In words, and begins anew.
    pub fn take(&mut self) -> Vec<String> {
        let taken = std::mem::take(&mut self.0);
        taken.into_iter().map(|(what, (count, example))| format!("{count} {what}, such as {example}")).collect()
    }
}

/// Rows of all tables under construction.
pub struct Maker {
    source: LogSource,
    host: String,
    rows: BTreeMap<&'static str, Rows>,
    /// What was odd.
    pub remarks: Remarks,
}

impl Maker {
    /// Of this source on this machine.
    pub fn new(source: LogSource, host: String) -> Maker {
        Maker { source, host, rows: BTreeMap::new(), remarks: Remarks::default() }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// A mistake of this code: a cell that does not fit its column.
    pub fn add(&mut self, message: Message<'_>, state: &mut State) -> Result<(), RowsError> {
        let text = message.text.trim_end();
        if text.trim().is_empty() {
            pass(text, message.transient, state);
            return Ok(());
        }
        let object = object_of(text);
        let said = self.said(&message, text, object.as_ref());
        let labels = || {
            let own = self.source.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
            message.labels.iter().cloned().chain(own)
        };
        let mut reading = Reading { zone: self.source.zone, now: message.read_at, remarks: &mut self.remarks };
        let row = self.source.extract.iter().find_map(|one| reading.extracted(one, text, object.as_ref(), state));
        pass(text, message.transient, state);
        let keep = !message.transient
            && match self.source.keep {
                Keep::All => true,
                Keep::Extracted => row.is_some(),
                Keep::None => false,
                Keep::From(level) => said.level >= Some(level),
            };
        if let Some(mut row) = row
            && let Some(ts) = reading.in_time(row.ts.unwrap_or(said.ts), text)
        {
            reading.label(&mut row, labels(), &self.host);
            rows_of(&mut self.rows, row.table.name)?.push(ts, row.cells)?;
        }
        if !keep {
            return Ok(());
        }
        let Some(ts) = reading.in_time(said.ts, text) else { return Ok(()) };
        let mut fields = said.fields;
        fields.extend(labels());
        if fields.len() > FIELDS {
            reading.remarks.add("lines have fields beyond 100, which are left out", || shortened(text));
        }
        let fields: Vec<(String, String)> = fields.into_iter().take(FIELDS).collect();
        let cells = [
            ("host", Cell::Text(self.host.clone())),
            ("source", message.source.into()),
            ("level", said.level.map(Level::name).into()),
            ("message", said.message.into()),
            ("fields", if fields.is_empty() { Cell::Null } else { Cell::Map(fields) }),
        ];
        rows_of(&mut self.rows, "log")?.push(ts, cells)
    }

    /// The batches, and begins anew.
    ///
    /// # Errors
    /// A mistake of this code.
    pub fn finish(&mut self) -> Result<Vec<(&'static str, arrow::array::RecordBatch)>, RowsError> {
        let rows = std::mem::take(&mut self.rows);
        let batches = rows.into_iter().map(|(name, rows)| Ok(rows.finish()?.map(|batch| (name, batch))));
        batches.filter_map(Result::transpose).collect()
    }

    /// What a message says of itself.
    fn said(&self, message: &Message<'_>, text: &str, object: Option<&Map<String, Value>>) -> Said {
        let (zone, now) = (self.source.zone, message.read_at);
        let known = message.known.clone().unwrap_or_default();
        let draft = match (&self.source.format, object) {
            (Format::Auto(keys), Some(object)) => Draft::of_object(object, keys, zone, now),
            (Format::Text { line, time }, _) => Draft::of_line(text, line, time.as_deref(), zone, now),
            _ => Draft::default(),
        };
        let of_text = || if object.is_some() { None } else { Level::of_line(text) };
        let mut fields: BTreeMap<String, String> = known.fields.into_iter().collect();
        fields.extend(draft.fields);
        Said {
            ts: known.ts.or(draft.ts).or_else(|| time_of(text, zone, now)).unwrap_or(now),
            // A program knows better how grave its line is than whoever brings it.
            level: draft.level.or_else(of_text).or(known.level),
            message: draft.message.unwrap_or_else(|| text.to_string()),
            fields,
        }
    }
}

/// What a message says of itself.
struct Said {
    ts: Timestamp,
    level: Option<Level>,
    message: String,
    fields: BTreeMap<String, String>,
}

/// The parts that a line names.
#[derive(Default)]
struct Draft {
    ts: Option<Timestamp>,
    level: Option<Level>,
    message: Option<String>,
    fields: BTreeMap<String, String>,
}

const TS_KEYS: [&str; 7] = ["ts", "time", "timestamp", "@timestamp", "asctime", "created", "datetime"];
const LEVEL_KEYS: [&str; 6] = ["level", "levelname", "severity", "lvl", "log.level", "loglevel"];
const MESSAGE_KEYS: [&str; 5] = ["message", "msg", "log", "event", "text"];

impl Draft {
    fn of_object(object: &Map<String, Value>, keys: &Keys, zone: Zone, now: Timestamp) -> Draft {
        let mut taken = Vec::new();
        let mut take = |own: &Option<String>, usual: &[&'static str], fits: &dyn Fn(&str) -> bool| {
            let names = own.as_deref().map_or_else(|| usual.to_vec(), |name| vec![name]);
            let found = names.into_iter().find_map(|name| {
                let text = text_of(at_way(object, name)?)?;
                fits(&text).then_some((name.to_string(), text))
            });
            found.map(|(name, text)| {
                taken.push(name);
                text
            })
        };
        let ts = take(&keys.ts, &TS_KEYS, &|text| time_of_value(text, zone, now).is_some());
        let level = take(&keys.level, &LEVEL_KEYS, &|text| Level::of_word(text).is_some());
        let message = take(&keys.message, &MESSAGE_KEYS, &|_| true);
        let rest = object.iter().filter(|(name, _)| !taken.contains(name));
        Draft {
            ts: ts.and_then(|text| time_of_value(&text, zone, now)),
            level: level.and_then(|text| Level::of_word(&text)),
            message: message.map(|text| text.trim_end().to_string()),
            fields: rest.filter_map(|(name, value)| Some((name.clone(), text_of(value)?))).collect(),
        }
    }

    fn of_line(text: &str, line: &Regex, pattern: Option<&str>, zone: Zone, now: Timestamp) -> Draft {
        let mut draft = Draft::default();
        let Some(found) = line.captures(text) else { return draft };
        for name in line.capture_names().flatten() {
            let Some(value) = found.name(name).map(|value| value.as_str()) else { continue };
            match name {
                TIME_COLUMN => {
                    let by_pattern = pattern.map(|pattern| time_by(value, pattern, zone));
                    draft.ts = by_pattern.unwrap_or_else(|| time_of_value(value, zone, now));
                }
                "level" => draft.level = Level::of_word(value),
                "message" => draft.message = Some(value.to_string()),
                _ => drop(draft.fields.insert(name.to_string(), value.to_string())),
            }
        }
        draft
    }
}

/// A row of another table.
struct Row {
    table: &'static Table,
    ts: Option<Timestamp>,
    cells: Vec<(&'static str, Cell)>,
}

/// What reading values takes.
struct Reading<'a> {
    zone: Zone,
    now: Timestamp,
    remarks: &'a mut Remarks,
}

impl Reading<'_> {
    /// The row of named texts; none when no text is for one of its columns. A text that does not fit its column leaves it NULL.
    fn row(
        &mut self,
        table: &'static Table,
        scale: &BTreeMap<String, f64>,
        texts: impl Iterator<Item = (String, String)>,
    ) -> Option<Row> {
        let mut row = Row { table, ts: None, cells: Vec::new() };
        for (name, text) in texts {
            if name == TIME_COLUMN {
                row.ts = time_of_value(&text, self.zone, self.now);
            }
            let Some(column) = table.column(&name) else { continue };
            match cell(column, &text, scale.get(&name).copied(), self.zone, self.now) {
                Some(cell) => row.cells.push((column.name, cell)),
                None => self.remarks.add("values did not fit their columns", || {
                    format!("'{}' for {}.{}", shortened(&text), table.name, column.name)
                }),
            }
        }
        Some(row).filter(|row| !row.cells.is_empty())
    }

    fn extracted(
        &mut self,
        extract: &Extract,
        text: &str,
        object: Option<&Map<String, Value>>,
        state: &mut State,
    ) -> Option<Row> {
        match extract {
            Extract::Preset(preset, training) => {
                let step = step_of(*preset, text, training, state)?;
                Some(Row { table: table::find("train_step")?, ts: None, cells: step.cells() })
            }
            Extract::Regex { table, regex, scale } => {
                let found = regex.captures(text)?;
                let group = |name: &str| Some((name.to_string(), found.name(name)?.as_str().to_string()));
                self.row(table, scale, regex.capture_names().flatten().filter_map(group))
            }
            Extract::Json { table, rename, scale } => {
                let behind = if object.is_none() { object_of(&text[text.find('{')?..]) } else { None };
                let object = object.or(behind.as_ref())?;
                let renamed =
                    rename.iter().filter_map(|(way, name)| Some((name.clone(), text_of(at_way(object, way)?)?)));
                let renamed: Vec<(String, String)> = renamed.collect();
                let is_own = |name: &String| renamed.iter().all(|(column, _)| column != name);
                let own = object.iter().filter(|(name, _)| is_own(name));
                let own = own.filter_map(|(name, value)| Some((name.clone(), text_of(value)?)));
                let texts: Vec<(String, String)> = renamed.iter().cloned().chain(own).collect();
                let row = self.row(table, scale, texts.into_iter())?;
                // Names that many objects have make no row.
                let says = |(name, _): &(&str, Cell)| {
                    table.column(name).is_some_and(|column| !column.identity) && *name != "host"
                };
                row.cells.iter().any(says).then_some(row)
            }
        }
    }

    /// The instant, if it can be the line's.
    fn in_time(&mut self, ts: Timestamp, text: &str) -> Option<Timestamp> {
        if ts > self.now.saturating_add(FUTURE_SKEW) {
            self.remarks
                .add("lines are from the future (is zone right?); they get the time of reading", || shortened(text));
            return Some(self.now);
        }
        if ts < self.now.saturating_sub(LATE_ROWS) {
            self.remarks.add("lines are older than a day, and not taken", || shortened(text));
            return None;
        }
        Some(ts)
    }

    /// Fills what the line did not say from labels, and the machine's name.
    fn label(&mut self, row: &mut Row, labels: impl Iterator<Item = (String, String)>, host: &str) {
        let of_host = ("host".to_string(), host.to_string());
        for (name, text) in labels.chain([of_host]) {
            let Some(column) = row.table.column(&name) else { continue };
            if row.cells.iter().any(|(name, _)| *name == column.name) {
                continue;
            }
            match cell(column, &text, None, self.zone, self.now) {
                Some(cell) => row.cells.push((column.name, cell)),
                None => {
                    self.remarks.add("labels did not fit their columns", || format!("{name} = '{}'", shortened(&text)))
                }
            }
        }
    }
}

fn rows_of<'a>(rows: &'a mut BTreeMap<&'static str, Rows>, table: &'static str) -> Result<&'a mut Rows, RowsError> {
    Ok(match rows.entry(table) {
        std::collections::btree_map::Entry::Occupied(rows) => rows.into_mut(),
        std::collections::btree_map::Entry::Vacant(place) => place.insert(Rows::of(table)?),
    })
}

/// A value of a column; `None` when the text is not one.
fn cell(column: &Column, text: &str, scale: Option<f64>, zone: Zone, now: Timestamp) -> Option<Cell> {
    let text = text.trim();
    let number = || {
        let plain = text.replace(['_', ','], "");
        plain.parse::<f64>().ok().map(|number| number * scale.unwrap_or(1.0))
    };
    match column.column_type {
        ColumnType::Utf8 => Some(Cell::Text(text.to_string())),
        ColumnType::Int64 => match (text.parse(), scale) {
            (Ok(number), None) => Some(Cell::Int(number)),
            _ => {
                let fits = |number: &f64| number.abs() < 9e15 && (scale.is_some() || number.fract() == 0.0);
                number().filter(fits).map(|number| Cell::Int(number.round() as i64))
            }
        },
        ColumnType::Float64 => number().filter(|number| number.is_finite()).map(Cell::Float),
        ColumnType::Float64WithNan => number().map(Cell::Float),
        ColumnType::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(Cell::Bool(true)),
            "false" | "0" | "no" => Some(Cell::Bool(false)),
            _ => None,
        },
        ColumnType::Timestamp => time_of_value(text, zone, now).map(Cell::Time),
        ColumnType::Map => None,
    }
}

/// A member by its name, else by a way such as `metrics.loss`.
fn at_way<'a>(object: &'a Map<String, Value>, way: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(way) {
        return Some(value);
    }
    let (first, rest) = way.split_once('.')?;
    at_way(object.get(first)?.as_object()?, rest)
}

/// A value as text; nothing of null.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The object that a text is. Python writes NaN and Infinity, which JSON does not have: they become texts.
fn object_of(text: &str) -> Option<Map<String, Value>> {
    let text = text.trim();
    if !(text.starts_with('{') && text.ends_with('}')) {
        return None;
    }
    let parsed =
        serde_json::from_str(text).or_else(|error| match ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
            true => serde_json::from_str(&with_quotes(text)),
            false => Err(error),
        });
    parsed.ok()
}

/// The same with `NaN` and `Infinity` in quotes, where they are in none.
fn with_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut rest, mut within) = (text, false);
    while let Some(letter) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !within && rest.starts_with(word));
        let taken = match (word, letter) {
            (Some(word), _) => {
                quoted += &format!("\"{word}\"");
                word.len()
            }
            (None, '\\') if within => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                quoted += &rest[..length];
                length
            }
            (None, letter) => {
                within ^= letter == '"';
                quoted.push(letter);
                letter.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    quoted
}

/// So that a message about a line is not as long as the line.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
