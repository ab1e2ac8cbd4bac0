//! Bundles the rules: writes lists of every `rules/**/*.sql`, `pack/**/*.sql` and `views/**/*.sql` with its test file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    for folder in ["rules", "pack", "views"] {
        println!("cargo::rerun-if-changed={folder}");
        bundle(&root, folder);
    }
}

fn bundle(root: &Path, folder: &str) {
    let mut files = Vec::new();
    find(&root.join(folder), &mut files);
    files.sort();
    let mut code = String::from("&[\n");
    for file in files {
        let inside = file.strip_prefix(root).unwrap_or(&file);
        // From the crate's folder when it is compiled: another clone with the same target folder may have run this script.
        let text_of = |path: &Path| {
            format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))", Path::new("/").join(path))
        };
        let (sql, test) = (text_of(inside), text_of(&inside.with_extension("test.yaml")));
        let _ = writeln!(code, "    RuleFile {{ path: {inside:?}, sql: {sql}, test: {test} }},");
    }
    code.push(']');
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join(format!("{folder}.rs"));
    if let Err(error) = std::fs::write(&out, code) {
        println!("cargo::error=can't write {}: {error}", out.display());
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
}
