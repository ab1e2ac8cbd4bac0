//! The file that names sources: TOML, every fault with its place.

mod page;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::table::{self, ColumnType, TIME_COLUMN, Table};
use toml::de::{DeTable, DeValue};

use super::LogFault;
use super::container::Container;
use super::join::Join;
use super::level::Level;
use super::options::{Extract, Feed, Format, From, Keep, Keys, LogOptions, LogSource, Preset, Training};
use page::{Fields, Page, Value};

/// Sources of a file.
const SOURCES: usize = 100;

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the text of a file of this name.
pub fn read(name: &str, text: &str, environment: Environment<'_>) -> Result<LogOptions, Vec<LogFault>> {
    let page = Page { name, text, faults: RefCell::default() };
    let document = DeTable::parse(text).map_err(|error| {
        page.fault(error.span().map_or(0, |span| span.start), error.message());
        page.faults()
    })?;
    let mut fields = Fields { table: document.get_ref(), at: 0, asked: BTreeSet::new(), page: &page };
    let mut sources: Vec<LogSource> = Vec::new();
    let tables = fields.take("source").map(|value| value.tables()).unwrap_or_default();
    if tables.is_empty() && page.faults.borrow().is_empty() {
        page.fault(0, "no source: expected [[source]]");
    }
    if tables.len() > SOURCES {
        page.fault(tables[SOURCES].at, format!("{} sources: expected at most {SOURCES}", tables.len()));
    }
    for table in tables {
        let at = table.at;
        let Some(source) = source(table, environment) else { continue };
        if sources.iter().any(|before| before.name == source.name) {
            page.fault(at, format!("source '{}' is there twice: what was read is remembered by name", source.name));
        }
        sources.push(source);
    }
    fields.end();
    match page.faults() {
        faults if faults.is_empty() => Ok(LogOptions { sources }),
        faults => Err(faults),
    }
}

fn source(mut fields: Fields<'_>, environment: Environment<'_>) -> Option<LogSource> {
    let (page, at) = (fields.page, fields.at);
    let name = fields.take("name").and_then(|value| {
        let good = |name: &String| {
            !name.is_empty()
                && name.len() <= 64
                && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
        };
        value.checked(value.text(), good, "expected letters, digits, _ and -, at most 64")
    });
    if name.is_none() && !fields.has("name") {
        page.fault(at, "a source has no name: expected name = \"...\"");
    }
    let feed = feed(&mut fields);
    let from = fields.word("from", &[("end", From::End), ("start", From::Start)]).unwrap_or_default();
    let labels = fields.take("labels").map(|value| labels(value, environment)).unwrap_or_default();
    let zone = fields.parsed("zone").unwrap_or_default();
    let format = format(&mut fields);
    let join = fields.take("multiline").and_then(join).unwrap_or_default();
    let keep = fields.take("keep").and_then(keep).unwrap_or_default();
    let groups = match &feed {
        Some(Feed::Files { path_regex: Some(regex), .. }) => {
            regex.capture_names().flatten().map(str::to_string).collect()
        }
        _ => Vec::new(),
    };
    let known: BTreeSet<String> = labels.keys().cloned().chain(groups).collect();
    let tables = fields.take("extract").map(|value| value.tables()).unwrap_or_default();
    let extract: Vec<Extract> = tables.into_iter().filter_map(|table| extract(table, &known)).collect();
    if matches!(keep, Keep::None | Keep::Extracted) && extract.is_empty() && !fields.has("extract") {
        page.fault(at, "keep leaves nothing of this source: expected [[source.extract]] too, or keep = \"all\"");
    }
    fields.end();
    Some(LogSource { name: name?, feed: feed?, from, labels, zone, format, join, keep, extract })
}

fn feed(fields: &mut Fields<'_>) -> Option<Feed> {
    let paths = fields.take("paths").map(|value| {
        let patterns = value.texts();
        for pattern in &patterns {
            if let Err(error) = glob::Pattern::new(pattern) {
                value.fault(format!("'{pattern}': {}", error.msg));
            } else if !pattern.starts_with('/') {
                value.fault(format!("'{pattern}': expected a path from the root"));
            }
        }
        patterns
    });
    let path_regex = fields.take("path_regex").and_then(Value::regex);
    let container = fields.word("container", &CONTAINERS.map(|container| (container.name(), container)));
    let journal = fields.take("journal").map(|value| {
        let mut fields = value.table()?;
        let program = fields.take("program").and_then(Value::text).unwrap_or_else(|| "journalctl".to_string());
        let arguments = fields.take("arguments").map(Value::texts).unwrap_or_default();
        let units = fields.take("units").map(Value::texts).unwrap_or_default();
        fields.end();
        Some(Feed::Journal { program: program.into(), arguments, units })
    });
    match (paths, journal) {
        (Some(paths), None) if !paths.is_empty() => Some(Feed::Files { paths, path_regex, container }),
        (None, Some(journal)) => {
            if path_regex.is_some() {
                fields.page.fault(fields.at, "a journal has no paths: path_regex is for files");
            }
            if container.is_some() {
                fields.page.fault(fields.at, "a journal has no envelopes: container is for files");
            }
            journal
        }
        _ => {
            fields.page.fault(fields.at, "expected either paths = [\"...\"] or [source.journal]");
            None
        }
    }
}

fn labels(value: Value<'_>, environment: Environment<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, text) in value.pairs() {
        let mut filled = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let Some((variable, after)) = after.split_once('}') else {
                value.fault(format!("labels.{name}: '${{' without '}}'"));
                break;
            };
            match environment(variable) {
                Some(found) => filled += &format!("{before}{found}"),
                None => value.fault(format!("labels.{name}: the environment has no {variable}")),
            }
            rest = after;
        }
        labels.insert(name, filled + rest);
    }
    labels
}

fn format(fields: &mut Fields<'_>) -> Format {
    let line = fields.take("line").and_then(Value::regex);
    let time = fields.take("time_format").and_then(|value| {
        let good = |text: &String| {
            chrono::format::StrftimeItems::new(text).all(|item| !matches!(item, chrono::format::Item::Error))
        };
        value.checked(value.text(), good, "expected strftime's letters, such as %d/%b/%Y:%H:%M:%S %z")
    });
    let keys = fields.take("keys").and_then(|value| {
        let mut fields = value.table()?;
        let mut key = |name| fields.take(name).and_then(Value::text);
        let keys = Keys { ts: key("ts"), level: key("level"), message: key("message") };
        fields.end();
        Some(keys)
    });
    if (line.is_some() || time.is_some()) && keys.is_some() {
        fields.page.fault(fields.at, "line and time_format are for text, keys for objects: expected one of them");
    }
    let groups: Vec<&str> = line.iter().flat_map(|regex| regex.capture_names().flatten()).collect();
    if time.is_some() && !groups.contains(&TIME_COLUMN) {
        fields.page.fault(fields.at, "time_format: expected line with a group (?P<ts>...) too");
    }
    match line {
        Some(line) => Format::Text { line, time },
        None => Format::Auto(keys.unwrap_or_default()),
    }
}

fn join(value: Value<'_>) -> Option<Join> {
    if let DeValue::Table(_) = value.value {
        let mut fields = value.table()?;
        let start = fields.take("start").and_then(Value::regex).map(Join::Start);
        let goes_on = fields.take("continue").and_then(Value::regex).map(Join::Continue);
        fields.end();
        if start.is_some() == goes_on.is_some() {
            value.fault("expected either start or continue");
        }
        return start.or(goes_on);
    }
    match value.text()?.as_str() {
        "traceback" => Some(Join::Traceback),
        "none" => Some(Join::Never),
        text => {
            value.fault(format!("'{text}': expected traceback, none, {{ start = '...' }} or {{ continue = '...' }}"));
            None
        }
    }
}

fn keep(value: Value<'_>) -> Option<Keep> {
    let text = value.text()?;
    let level = text.strip_prefix("level").map(str::trim_start).and_then(|rest| rest.strip_prefix(">="));
    match (text.as_str(), level.map(Level::of_word)) {
        ("all", _) => Some(Keep::All),
        ("extracted", _) => Some(Keep::Extracted),
        ("none", _) => Some(Keep::None),
        (_, Some(Some(level))) => Some(Keep::From(level)),
        _ => {
            value.fault(format!("'{text}': expected all, extracted, none, or such as 'level >= warning'"));
            None
        }
    }
}

const CONTAINERS: [Container; 2] = [Container::Cri, Container::Docker];

const PRESETS: [(&str, Preset); 4] = [
    ("megatron", Preset::Megatron),
    ("deepspeed", Preset::DeepSpeed),
    ("hf_trainer", Preset::HfTrainer),
    ("lightning", Preset::Lightning),
];

fn extract(mut fields: Fields<'_>, known: &BTreeSet<String>) -> Option<Extract> {
    let (page, at) = (fields.page, fields.at);
    let preset = fields.word("preset", &PRESETS);
    let regex = fields.take("regex").and_then(Value::regex);
    let json = fields.take("json").and_then(Value::flag).unwrap_or(false);
    let rename = fields.take("rename").map(Value::pairs).unwrap_or_default();
    let table = fields.take("table").and_then(table_of);
    let scale = fields.take("scale").map(Value::numbers).unwrap_or_default();
    let steps_per_epoch = fields.take("steps_per_epoch").and_then(Value::number).filter(|steps| *steps > 0.0);
    let samples = fields.take("samples_per_step").and_then(Value::number).filter(|samples| *samples >= 1.0);
    let found = [("preset", preset.is_some()), ("regex", regex.is_some()), ("table", table.is_some())];
    let wrong = found.iter().any(|(key, is_right)| fields.has(key) && !is_right);
    fields.end();
    let kinds = [preset.is_some(), regex.is_some(), json].iter().filter(|is| **is).count();
    if wrong {
        return None;
    }
    if kinds != 1 {
        page.fault(at, "expected one of preset, regex and json = true");
        return None;
    }
    if let Some(preset) = preset {
        if table.is_some() || !rename.is_empty() || !scale.is_empty() {
            page.fault(at, "a preset makes rows of train_step: table, rename and scale are not for it");
        }
        check_job("train_step", |name| known.contains(name), page, at);
        let samples_per_step = samples.map(|samples| samples as i64);
        return Some(Extract::Preset(preset, Training { steps_per_epoch, samples_per_step }));
    }
    if steps_per_epoch.or(samples).is_some() {
        page.fault(at, "steps_per_epoch and samples_per_step are for presets");
    }
    let Some(table) = table else {
        page.fault(at, "expected table = \"...\" too");
        return None;
    };
    let named: Vec<String> = match &regex {
        Some(regex) => regex.capture_names().flatten().map(str::to_string).collect(),
        None => rename.values().cloned().collect(),
    };
    if regex.is_some() && named.is_empty() {
        page.fault(at, "regex: expected named groups such as (?P<loss>\\S+)");
    }
    if regex.is_some() && !rename.is_empty() {
        page.fault(at, "rename is for json: a regex names its groups");
    }
    let columns = || table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    for name in named.iter().chain(scale.keys()) {
        let fits = |column: &table::Column| column.column_type != ColumnType::Map;
        if name != TIME_COLUMN && !table.column(name).is_some_and(fits) {
            page.fault(at, format!("{} has no column '{name}' for that: expected of {}", table.name, columns()));
        }
    }
    if regex.is_some() {
        check_job(table.name, |name| known.contains(name) || named.iter().any(|group| group == name), page, at);
    }
    Some(match regex {
        Some(regex) => Extract::Regex { table, regex, scale },
        None => Extract::Json { table, rename, scale },
    })
}

/// Rows of training jobs are told apart by their job.
fn check_job(table: &str, is_known: impl Fn(&str) -> bool, page: &Page<'_>, at: usize) {
    if ["train_step", "job_event"].contains(&table) && !is_known("job") {
        page.fault(
            at,
            format!("rows of {table} need a job: expected a label job, or a group (?P<job>...) of path_regex or regex"),
        );
    }
}

fn table_of(value: Value<'_>) -> Option<&'static Table> {
    let name = value.text()?;
    let found = table::TABLES.iter().find(|table| table.name == name);
    match found {
        Some(table) if !table.is_own() && !["log", "collector"].contains(&table.name) => Some(table),
        Some(_) => {
            value.fault(format!("rows of {name} are not made of log lines"));
            None
        }
        None => {
            value.fault(format!("there is no table '{name}'"));
            None
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
