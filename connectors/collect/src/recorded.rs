//! For tests: a machine in a folder, and the cells of what was collected from it.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::collector::Collected;
use crate::reading::Roots;

/// A folder with a /proc and a /sys of its own.
pub struct Recorded(TempDir);

impl Recorded {
    /// With these files.
    pub fn of(files: &[(&str, &str)]) -> Recorded {
        let machine = Recorded(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| machine.put(path, text));
        machine
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn roots(&self) -> Roots {
        Roots::recorded(self.0.path())
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.0.path().join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// Writes a file.
    pub fn put(&self, path: &str, text: &str) {
        std::fs::write(self.place(path), text).unwrap();
    }

    /// Makes a symbolic link.
    pub fn link(&self, path: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.place(path)).unwrap();
    }

    /// Removes a file, or a folder with all that is in it.
    pub fn remove(&self, path: &str) {
        let place = self.0.path().join(path);
        match place.is_dir() {
            true => std::fs::remove_dir_all(place).unwrap(),
            false => std::fs::remove_file(place).unwrap(),
        }
    }
}

/// Rows that were collected.
pub fn rows(collected: &Collected) -> usize {
    collected.batch.as_ref().map_or(0, |batch| batch.num_rows())
}

/// A row as text, by column, without those that are NULL.
pub fn row(collected: &Collected, number: usize) -> HashMap<String, String> {
    let batch = collected.batch.as_ref().unwrap();
    let schema = batch.schema();
    let options = arrow::util::display::FormatOptions::default();
    let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let text =
            arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(number).to_string();
        (field.name().clone(), text)
    });
    cells.filter(|(_, text)| !text.is_empty()).collect()
}

/// Compares some cells of a row; `NULL` is what it lacks.
pub fn check(row: &HashMap<String, String>, expected: &[(&str, &str)]) {
    for (column, value) in expected {
        assert_eq!(row.get(*column).map_or("NULL", String::as_str), *value, "{column}");
    }
}
