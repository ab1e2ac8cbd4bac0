//! What is read, and what is made of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use tidewatch_model::table::Table;

use super::container::Container;
use super::join::Join;
use super::level::Level;
use super::when::Zone;
use super::{LogFault, file};

/// Every source of log lines.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The sources, with names of their own.
    pub sources: Vec<LogSource>,
}

impl LogOptions {
    /// Reads a file (docs/logs.md). `${NAME}` in a label is a variable of this process' environment.
    ///
    /// # Errors
    /// Every fault of the file, with line and column.
    pub fn from_file(path: &Path) -> Result<LogOptions, Vec<LogFault>> {
        let environment = |name: &str| std::env::var(name).ok();
        match std::fs::read_to_string(path) {
            Ok(text) => file::read(&path.display().to_string(), &text, &environment),
            Err(error) => Err(vec![LogFault(format!("{}: {error}", path.display()))]),
        }
    }
}

/// Files or a journal, and what is made of their lines.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// Its name: letters, digits, `_` and `-`. What was read is remembered under it.
    pub name: String,
    /// Where the lines are.
    pub feed: Feed,
    /// Where it begins when nothing of it is remembered.
    pub from: From,
    /// Columns of extracted rows, and fields of log lines.
    pub labels: BTreeMap<String, String>,
    /// Of times that do not tell theirs.
    pub zone: Zone,
    /// What a line is.
    pub format: Format,
    /// Which lines belong together.
    pub join: Join,
    /// What becomes a row of `log`.
    pub keep: Keep,
    /// What becomes rows of other tables; the first that fits a line takes it.
    pub extract: Vec<Extract>,
}

/// Where lines are.
#[derive(Debug, Clone)]
pub enum Feed {
    /// Files by their patterns.
    Files {
        /// Patterns of paths: `*`, `?`, `[abc]`, `**`.
        paths: Vec<String>,
        /// Named groups of a path are labels.
        path_regex: Option<Regex>,
        /// Lines are in the envelopes of a container's runtime.
        container: Option<Container>,
    },
    /// systemd's journal.
    Journal {
        /// The program that reads it.
        program: PathBuf,
        /// What it is told besides, such as `--directory=...`.
        arguments: Vec<String>,
        /// Units; all when there is none.
        units: Vec<String>,
    },
}

/// Where a source begins that nothing is known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// Behind what is there.
    #[default]
    End,
    /// At its beginning.
    Start,
}

/// What a line is.
#[derive(Debug, Clone)]
pub enum Format {
    /// An object where a line is one, else text.
    Auto(Keys),
    /// Text, of which a pattern says what is `ts`, `level` and `message`; its other groups are fields.
    Text {
        /// The pattern.
        line: Regex,
        /// How `ts` is written, in strftime's letters; by default as most loggers do.
        time: Option<String>,
    },
}

/// Names in objects. Without one, those that most loggers use are tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// When.
    pub ts: Option<String>,
    /// How grave.
    pub level: Option<String>,
    /// What.
    pub message: Option<String>,
}

/// Which lines become rows of `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// Those that something was extracted from.
    Extracted,
    /// None.
    None,
    /// Those of this level and above; a line without a level is not among them.
    From(Level),
}

/// How rows are made of lines.
#[derive(Debug, Clone)]
pub enum Extract {
    /// A trainer's lines, as rows of `train_step`.
    Preset(Preset, Training),
    /// Named groups are columns.
    Regex {
        /// The table.
        table: &'static Table,
        /// The pattern.
        regex: Regex,
        /// What numbers are multiplied by, by column.
        scale: BTreeMap<String, f64>,
    },
    /// Names of an object are columns.
    Json {
        /// The table.
        table: &'static Table,
        /// Names, or ways such as `metrics.loss`, and the columns that they are.
        rename: BTreeMap<String, String>,
        /// What numbers are multiplied by, by column.
        scale: BTreeMap<String, f64>,
    },
}

/// Trainers whose lines are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Megatron-LM, and what came of it.
    Megatron,
    /// DeepSpeed.
    DeepSpeed,
    /// Hugging Face's Trainer, and TRL's.
    HfTrainer,
    /// PyTorch Lightning's progress bars, and its metrics.csv.
    Lightning,
}

/// What a trainer does not say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Training {
    /// Steps of an epoch: the step of a line that tells its epoch only.
    pub steps_per_epoch: Option<f64>,
    /// Samples of a step: the time of a step of which samples a second are told.
    pub samples_per_step: Option<i64>,
}
