//! The rules of a running `up`: bundled ones, those of the configuration, and those that `tidewatch rules` put into the data
//! folder. What changes in the files changes in the engine.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use tidewatch_sql::{Dimensions, Loaded};

use crate::config::Config;
use crate::dimension_files::state;
use crate::failure::Failure;
use crate::rule_files;
use crate::station::RuleSet;

/// Where `tidewatch rules add` puts rules.
pub fn own_rules(config: &Config) -> PathBuf {
    config.data_dir.join("rules")
}

/// The names of rules that are suspended, one a line.
pub fn suspended_file(config: &Config) -> PathBuf {
    config.data_dir.join("internal").join("suspended_rules")
}

/// The rules that are suspended.
///
/// # Errors
/// A file that is there and can't be read.
pub fn suspended(config: &Config) -> Result<BTreeSet<String>, Failure> {
    let file = suspended_file(config);
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect()),
        // Whether the data folder is one is asked elsewhere.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(BTreeSet::new()),
        Err(error) => Err(Failure::usage(format!("{}: {error}", file.display()))),
    }
}

/// All rules of a configuration.
///
/// # Errors
/// A path that can't be read; faults within the files are in the result.
pub fn load(config: &Config, dimensions: &Dimensions) -> Result<Loaded, Failure> {
    rule_files::load(&paths(config), config.rules_bundled, dimensions)
}

fn paths(config: &Config) -> Vec<PathBuf> {
    let own = own_rules(config);
    config.rules_paths.iter().cloned().chain(own.is_dir().then_some(own)).collect()
}

/// Looks now and then whether the rules' files changed.
pub struct RuleWatch {
    config: Config,
    /// Every file, its time and its length.
    seen: Vec<(PathBuf, Option<(SystemTime, u64)>)>,
    running: RuleSet,
}

/// What a look found.
pub struct News {
    /// The rules that there are to be.
    pub set: RuleSet,
    /// Errors and warnings, as they are printed.
    pub said: Vec<String>,
}

impl RuleWatch {
    /// As the files are now, before they are read.
    pub fn new(config: &Config) -> RuleWatch {
        RuleWatch { config: config.clone(), seen: states(config), running: RuleSet::default() }
    }

    /// These rules run.
    pub fn runs(&mut self, set: RuleSet) {
        self.running = set;
    }

    /// What was found could not be made to run: it is looked at again.
    pub fn again(&mut self) {
        self.seen.clear();
    }

    /// The rules, where any file changed since the last look, or in any case when `asked`. While a file has an error, rules that run and
    /// are in no file any more go on: the error may hide them.
    ///
    /// # Errors
    /// A path that can't be read; then nothing changes, and the next change is looked at again.
    pub fn look(&mut self, dimensions: &Dimensions, asked: bool) -> Result<Option<News>, Failure> {
        let now = states(&self.config);
        if !asked && now == self.seen {
            return Ok(None);
        }
        self.seen = now;
        let loaded = load(&self.config, dimensions)?;
        let complete = !loaded.has_errors();
        let mut rules = loaded.rules;
        if !complete {
            let is_there = |name: &str| rules.iter().any(|compiled| compiled.rule.name == name);
            let hidden: Vec<_> =
                self.running.rules.iter().filter(|known| !is_there(&known.rule.name)).cloned().collect();
            rules.extend(hidden);
        }
        let set = RuleSet { rules, complete, suspended: suspended(&self.config)? };
        let said =
            loaded.faults.iter().filter(|fault| fault.level != tidewatch_sql::Level::Note).map(ToString::to_string);
        Ok(Some(News { set, said: said.collect() }))
    }
}

fn states(config: &Config) -> Vec<(PathBuf, Option<(SystemTime, u64)>)> {
    let files = rule_files::sql_files(&paths(config)).unwrap_or_default();
    files.into_iter().chain([suspended_file(config)]).map(|file| (file.clone(), state(&file))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "CREATE ALERT a AS SELECT host FROM host WHERE load1 > 1; CREATE ALERT b AS SELECT host FROM host WHERE load1 > 2;";

    fn names(set: &RuleSet) -> Vec<&str> {
        let mut names: Vec<&str> = set.rules.iter().map(|compiled| compiled.rule.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_changes_in_the_files_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.sql");
        std::fs::write(&file, GOOD).unwrap();
        let config = Config {
            data_dir: folder.path().join("data"),
            rules_paths: vec![file.clone()],
            rules_bundled: rule_files::Bundled::None,
            ..Config::default()
        };
        let dimensions = Dimensions::default();
        let mut watch = RuleWatch::new(&config);
        let loaded = load(&config, &dimensions).unwrap();
        watch.runs(RuleSet { rules: loaded.rules, complete: true, ..RuleSet::default() });
        assert!(watch.look(&dimensions, false).unwrap().is_none());
        // The second rule is hidden by a slip: it goes on.
        std::fs::write(&file, GOOD.replace("> 2", "> > 2")).unwrap();
        let news = watch.look(&dimensions, false).unwrap().unwrap();
        assert_eq!((names(&news.set), news.set.complete, news.said.len()), (vec!["a", "b"], false, 1));
        watch.runs(news.set);
        assert!(watch.look(&dimensions, false).unwrap().is_none());
        std::fs::write(&file, &GOOD[..57]).unwrap();
        let news = watch.look(&dimensions, false).unwrap().unwrap();
        assert_eq!((names(&news.set), news.set.complete), (vec!["a"], true));
        // Rules that were added, and suspended ones.
        std::fs::create_dir_all(own_rules(&config)).unwrap();
        std::fs::write(own_rules(&config).join("c.sql"), "CREATE ALERT c AS SELECT host FROM host WHERE load1 > 3")
            .unwrap();
        std::fs::create_dir_all(suspended_file(&config).parent().unwrap()).unwrap();
        std::fs::write(suspended_file(&config), "c\n").unwrap();
        let news = watch.look(&dimensions, false).unwrap().unwrap();
        assert_eq!((names(&news.set), news.set.suspended.contains("c")), (vec!["a", "c"], true));
        assert!(watch.look(&dimensions, true).unwrap().is_some(), "when asked");
        watch.again();
        assert!(watch.look(&dimensions, false).unwrap().is_some(), "when it could not be made to run");
        std::fs::remove_file(&file).unwrap();
        assert!(
            watch.look(&dimensions, false).is_err() && watch.look(&dimensions, false).unwrap().is_none(),
            "said once"
        );
    }
}
