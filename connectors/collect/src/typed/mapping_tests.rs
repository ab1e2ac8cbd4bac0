//! The mapping as it is written down.

use std::collections::BTreeSet;
use std::path::Path;

use tidewatch_model::table::find;

use super::TypedTables;
use super::exporters::{EXPORTERS, How, Only, Word};

#[test]
fn which_tables_are_filled_is_said_in_words() {
    for (text, tables) in [
        ("all", vec!["serve", "serve_histogram", "data_job", "gpu", "gpu_event"]),
        ("none", vec![]),
        ("serve, gpu_event", vec!["serve", "gpu_event"]),
        ("auto", vec!["serve", "serve_histogram", "data_job"]),
    ] {
        let typed: TypedTables = text.parse().unwrap();
        assert_eq!(typed.tables(true), tables, "{text}");
        assert_eq!(typed.to_string().parse(), Ok(typed), "{text}");
    }
    let wrong = "serve,host".parse::<TypedTables>().unwrap_err();
    assert_eq!(wrong, "'host': expected auto, all, none or some of serve,serve_histogram,data_job,gpu,gpu_event");
}

/// The mapping names columns that there are, each once by metric, and identifies every row.
#[test]
fn the_mapping_fits_the_tables() {
    let mut seen = BTreeSet::new();
    for exporter in EXPORTERS {
        let table = find(exporter.table).unwrap();
        for name in exporter.names {
            assert!(table.column(name.column).is_some(), "{}: {}", exporter.name, name.column);
        }
        for column in table.identity() {
            assert!(exporter.names.iter().any(|name| name.column == column), "{}: {column}", exporter.name);
        }
        for measure in exporter.measures {
            let column =
                table.column(measure.column).unwrap_or_else(|| panic!("{}: {}", exporter.name, measure.column));
            assert!(!column.identity && !measure.ways.is_empty() && measure.ways.iter().all(|way| !way.is_empty()));
        }
        for histogram in exporter.histograms {
            assert!(seen.insert(histogram.metric), "{} twice", histogram.metric);
            assert_eq!(exporter.table, "serve");
        }
    }
}

fn words(words: &[Word]) -> String {
    let one = |word: &Word| match word {
        Word::Label(labels) => format!("`{}`", labels.join("` or `")),
        Word::After(before, labels) => format!("[{before}`{}`]", labels.join("` or `")),
        Word::Text(text) => text.to_string(),
        Word::Host([]) => "`instance` without its port".to_string(),
        Word::Host(labels) => format!("`{}`, else `instance` without its port", labels.join("` or `")),
    };
    words.iter().map(one).collect()
}

/// The part of docs/sources.md that says what becomes what is what the mapping says.
#[test]
fn the_page_of_exporters_is_true() {
    let mut page = String::new();
    for exporter in EXPORTERS {
        page +=
            &format!("\n### {}: `{}`\n\n| Column | Labels, or metrics |\n|---|---|\n", exporter.name, exporter.table);
        for name in exporter.names {
            page += &format!("| `{}` | {} |\n", name.column, words(name.words));
        }
        for measure in exporter.measures {
            let way = |way: &&[&str]| format!("`{}`", way.join("` + `"));
            let ways: Vec<String> = measure.ways.iter().map(way).collect();
            let only = match measure.only {
                Only::All => String::new(),
                Only::Is(label, values) => format!(" where `{label}` is {}", values.join(", ")),
                Only::Not(label, values) => format!(" where `{label}` is not {}", values.join(", ")),
            };
            let how = match measure.how {
                How::Times(1.0) => String::new(),
                How::Times(factor) => format!(", times {factor}"),
                How::MillisAgo => ", how long ago it is".to_string(),
            };
            page += &format!("| `{}` | {}{only}{how} |\n", measure.column, ways.join(", else "));
        }
        for histogram in exporter.histograms {
            let renamed = match (histogram.name == histogram.metric, histogram.seconds == 1.0) {
                (true, _) => String::new(),
                (false, true) => format!(" as `{}`", histogram.name),
                (false, false) => format!(" as `{}`, in seconds", histogram.name),
            };
            page += &format!("| `serve_histogram` | `{}_bucket`{renamed} |\n", histogram.metric);
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sources.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- written by a test: what becomes what -->\n", "<!-- end -->");
    let (before, rest) = found.split_once(begin).unwrap();
    let (between, after) = rest.split_once(end).unwrap();
    if std::env::var_os("TIDEWATCH_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{page}\n{end}{after}")).unwrap();
        return;
    }
    assert!(
        between.trim() == page.trim(),
        "docs/sources.md is not what the mapping is: run this test with TIDEWATCH_WRITE_DOCS=1"
    );
}
