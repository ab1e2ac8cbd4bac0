//! The SELECTs around each other, as people lay them out.

use std::time::Duration;

use crate::leaf::Leaf;
use crate::node::{Key, Kind, Node, Typed};
use crate::query::{Query, hop, leaf_name};
use crate::text::{column, words};

/// The longest window over samples.
const LONGEST: Duration = Duration::from_secs(2 * 3_600);
/// How many windows may overlap.
const OVERLAP: u128 = 3_600;

/// A SELECT, and what identifies its rows where SQL does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The SELECT.
    pub sql: String,
    /// The option `key`.
    pub key: Option<String>,
    /// Labels that identify its rows, where they are named.
    pub labels: Vec<String>,
}

/// The SELECT of an expression, looked at every `slide`.
///
/// # Errors
/// Why it has none.
pub fn select(typed: &Typed, slide: Duration) -> Result<Selected, String> {
    match &typed.kind {
        Kind::Scalar => Err("a number: expected series".to_string()),
        Kind::Constant => constant(&typed.node, slide),
        Kind::Vector(path) => vector(typed, path.len(), slide),
    }
}

fn constant(node: &Node, slide: Duration) -> Result<Selected, String> {
    let mut query = Query::new(&[node], 0, slide);
    let shown = query.shown(node, 0)?.into_sql();
    let present = query.present(node, 0)?.into_sql();
    let having = if present == "true" { "count(*) > 0".to_string() } else { format!("count(*) > 0 AND {present}") };
    let sql = format!(
        "SELECT {shown} AS value\nFROM {}\nGROUP BY window_start, window_end\nHAVING {having}",
        hop(slide, slide)
    );
    Ok(Selected { sql, key: None, labels: vec![] })
}

fn vector(typed: &Typed, level: usize, slide: Duration) -> Result<Selected, String> {
    if typed.node.top_level() > level {
        return Err("too many aggregations in each other".to_string());
    }
    let parts: Vec<&Node> = std::iter::once(&typed.node).chain(typed.extras.iter().map(|(_, text)| text)).collect();
    let mut query = Query::new(&parts, level, slide);
    if query.leaves.is_empty() {
        return Err("no series".to_string());
    }
    check_window(query.size, query.slide)?;
    // HAVING would take `labels` for the SELECT's own column of that name.
    let hides = matches!(&typed.kind, Kind::Vector(path) if matches!(path.last(), Some(Key::Without(_))));
    if hides || !typed.extras.is_empty() {
        query.named = true;
    }
    if typed.node.without_series().is_some() {
        if !matches!(&typed.kind, Kind::Vector(path) if path.last() == Some(&Key::By(vec![]))) {
            return Err("it fires where there are no series at all, and would have no labels".to_string());
        }
        query.always = true;
    }
    let shown = query.shown(&typed.node, level)?.into_sql();
    let present = query.present(&typed.node, level)?.into_sql();
    let mut extras = Vec::new();
    for (label, text) in &typed.extras {
        extras.push((label.clone(), query.value(text, level)?.into_sql()));
    }
    let keys: Vec<String> = match level {
        0 => vec!["labels".to_string()],
        _ => query.levels[level].texts.iter().map(|(name, _)| name.clone()).collect(),
    };
    let of_map = keys.iter().any(|key| key == "labels") && (level == 0 || keys.len() == 1);
    let value = if keys.iter().chain(extras.iter().map(|(name, _)| name)).any(|name| name == "value") {
        "value_"
    } else {
        "value"
    };
    let mut columns: Vec<String> = match query.named || level == 0 {
        true => keys.iter().map(|key| column_of(key)).collect(),
        false => {
            query.levels[level].texts.iter().map(|(name, text)| format!("{text} AS {}", column_of(name))).collect()
        }
    };
    columns.extend(extras.iter().map(|(name, text)| format!("{text} AS {}", column(name))));
    columns.push(format!("{shown} AS {value}"));
    let columns = columns.join(", ");
    let has = |word: &str| if present == "true" { String::new() } else { format!("\n{word} {present}") };
    let sql = match (query.named, level) {
        (true, _) => format!("SELECT {columns}\nFROM {}{}", nested(&complete(&query, level)), has("WHERE")),
        (false, 0) => {
            format!("SELECT {columns}\n{}\nGROUP BY window_start, window_end, labels{}", base(&query), has("HAVING"))
        }
        (false, _) => {
            let groups: Vec<String> = query.levels[level].texts.iter().map(|(_, text)| format!(", {text}")).collect();
            format!(
                "SELECT {columns}\nFROM {}\nGROUP BY window_end{}{}",
                nested(&complete(&query, level - 1)),
                groups.concat(),
                has("HAVING")
            )
        }
    };
    let identity: Vec<String> = keys.iter().chain(extras.iter().map(|(name, _)| name)).cloned().collect();
    let needs_key = query.named && (level > 0 || !extras.is_empty());
    if needs_key && identity.is_empty() {
        return Err("one result without labels that is told to rows: expected labels".to_string());
    }
    let labels = if of_map { extras.into_iter().map(|(name, _)| name).collect() } else { identity.clone() };
    Ok(Selected { sql, key: needs_key.then(|| identity.join(", ")), labels })
}

/// Whether a window may be so.
///
/// # Errors
/// The limit that it exceeds.
pub fn check_window(size: Duration, slide: Duration) -> Result<(), String> {
    if size > LONGEST {
        return Err(format!("it looks back {}: a window over metrics has {} at most", words(size), words(LONGEST)));
    }
    if size.as_millis() / slide.as_millis().max(1) > OVERLAP {
        return Err(format!("{} every {}: {OVERLAP} windows may overlap", words(size), words(slide)));
    }
    Ok(())
}

fn column_of(key: &str) -> String {
    if key == "labels" { key.to_string() } else { column(key) }
}

/// FROM and WHERE of the rows themselves.
fn base(query: &Query) -> String {
    let from = hop(query.slide, query.size);
    let conditions = query.conditions().join(" AND ");
    if !query.leaves.iter().any(Leaf::looks_at_neighbours) {
        return format!("FROM {from}\nWHERE {conditions}");
    }
    // Rows without a value are neighbours of each other.
    let apart = if query.sees_ends() { ", value IS NULL" } else { "" };
    let over = format!("OVER (PARTITION BY window_end, name, labels{apart} ORDER BY ts)");
    let rows = format!(
        "SELECT window_start, window_end, ts, name, labels, value,\n       lag(value) {over} AS before, lag(ts) {over} AS before_ts\nFROM {from}\nWHERE {conditions}"
    );
    format!("FROM {}", nested(&rows))
}

/// The rows of a level with all of their columns.
fn complete(query: &Query, level: usize) -> String {
    let mut sql = match level {
        0 => of_series(query),
        _ => {
            let own = &query.levels[level];
            let mut columns = vec!["window_end".to_string()];
            columns.extend(own.texts.iter().map(|(name, text)| format!("{text} AS {}", column_of(name))));
            columns.extend(own.columns.iter().map(|(name, text)| format!("{text} AS {name}")));
            let groups: String = own.texts.iter().map(|(_, text)| format!(", {text}")).collect();
            format!(
                "SELECT {}\nFROM {}\nGROUP BY window_end{groups}",
                columns.join(",\n       "),
                nested(&complete(query, level - 1))
            )
        }
    };
    for (name, text) in &query.levels[level].rests {
        sql = format!("SELECT *, {text} AS {name}\nFROM {}", nested(&sql));
    }
    for told in &query.levels[level].told {
        let columns: Vec<String> = told.iter().map(|(name, text)| format!("{text} AS {name}")).collect();
        if !columns.is_empty() {
            sql = format!("SELECT *, {}\nFROM {}", columns.join(",\n       "), nested(&sql));
        }
    }
    sql
}

fn of_series(query: &Query) -> String {
    let given = query.conditions();
    let mut columns = vec!["window_end, labels".to_string()];
    let mut after = vec!["window_end, labels".to_string()];
    let mut formulas = false;
    for (index, leaf) in query.leaves.iter().enumerate() {
        let name = leaf_name(index);
        let found = leaf.columns(&name, &given, query.size);
        columns.extend(found.aggregates.iter().map(|(name, text)| format!("{text} AS {name}")));
        match found.formula {
            Some(formula) => {
                formulas = true;
                after.push(format!("{formula} AS {name}"));
            }
            None => after.push(name),
        }
    }
    let sql =
        format!("SELECT {}\n{}\nGROUP BY window_start, window_end, labels", columns.join(",\n       "), base(query));
    if formulas { format!("SELECT {}\nFROM {}", after.join(",\n       "), nested(&sql)) } else { sql }
}

/// In parentheses, indented.
fn nested(sql: &str) -> String {
    let lines: Vec<String> = sql.lines().map(|line| format!("  {line}")).collect();
    format!("(\n{}\n)", lines.join("\n"))
}
