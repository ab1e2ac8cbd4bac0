//! `cargo run -p tidewatch-promql --example import FILE...`: the SQL on standard output, what is refused on standard error.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut texts = Vec::new();
    for file in std::env::args().skip(1) {
        match std::fs::read_to_string(&file) {
            Ok(text) => texts.push((file, text)),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    let imported = tidewatch_promql::import_all(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    imported.rules.iter().for_each(|rule| println!("{}", rule.sql));
    imported.refused.iter().for_each(|refusal| eprintln!("{refusal}"));
    eprintln!("{} translated, {} refused", imported.rules.len(), imported.refused.len());
    ExitCode::from(u8::from(!imported.refused.is_empty()))
}
