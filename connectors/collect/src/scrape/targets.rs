//! What is scraped: targets that were named, and those of files (Prometheus' `file_sd_configs`, in JSON).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::Deserialize;

/// One exporter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where its text is.
    pub url: String,
    /// Labels of all its samples: `job` and `instance`, and what a file says besides.
    pub labels: BTreeMap<String, String>,
}

impl FromStr for Target {
    type Err = String;

    /// `JOB=URL`; without a path it is `/metrics`.
    fn from_str(text: &str) -> Result<Target, String> {
        let (job, url) = text.split_once('=').ok_or_else(|| format!("'{text}': expected JOB=URL"))?;
        if job.is_empty() || !job.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter)) {
            return Err(format!("'{text}': expected a job's name before the ="));
        }
        // What stands before an @ may be a password.
        let shown = format!("{job}={}", url.rsplit('@').next().unwrap_or(url));
        Target::new(url, [("job".to_string(), job.to_string())].into())
            .map_err(|problem| format!("'{shown}': {problem}"))
    }
}

impl Target {
    /// The address without what may be a password.
    pub fn shown(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        format!("{scheme}://{}/{path}", authority.rsplit('@').next().unwrap_or(authority))
    }

    fn new(url: &str, mut labels: BTreeMap<String, String>) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or("expected http:// or https://")?;
        if !["http", "https"].contains(&scheme) {
            return Err("expected http:// or https://".to_string());
        }
        let (authority, path) = rest.split_once('/').map_or((rest, "metrics"), |(authority, path)| (authority, path));
        if authority.is_empty() {
            return Err("expected a host".to_string());
        }
        let instance = authority.rsplit('@').next().unwrap_or(authority);
        labels.entry("instance".to_string()).or_insert_with(|| instance.to_string());
        Ok(Target { url: format!("{scheme}://{authority}/{path}"), labels })
    }
}

/// One group of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The targets of a file: `[{"targets": ["host:9100"], "labels": {"job": "node", "__metrics_path__": "/metrics"}}]`.
pub fn read(path: &Path) -> Result<Vec<Target>, String> {
    let named = |problem: String| format!("{}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    let groups: Vec<Group> = serde_json::from_str(&text).map_err(|error| named(error.to_string()))?;
    let mut targets = Vec::new();
    for Group { targets: addresses, labels } in groups {
        let meta = |name: &str, default: &str| labels.get(name).cloned().unwrap_or_else(|| default.to_string());
        let (scheme, path) = (meta("__scheme__", "http"), meta("__metrics_path__", "/metrics"));
        let mut own: BTreeMap<String, String> = labels
            .iter()
            .filter(|(name, _)| !name.starts_with("__"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        own.entry("job".to_string()).or_insert_with(|| "file".to_string());
        for address in addresses {
            let url = format!("{scheme}://{address}/{}", path.trim_start_matches('/'));
            targets.push(Target::new(&url, own.clone()).map_err(|problem| named(format!("'{address}': {problem}")))?);
        }
    }
    Ok(targets)
}

/// A file of targets, read again when it changes; one that is broken leaves the targets as they were.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
    targets: Vec<Target>,
}

impl Watched {
    /// Not read yet.
    pub fn new(path: PathBuf) -> Watched {
        Watched { path, seen: None, targets: vec![] }
    }

    /// Its targets now; an error when it can't be read, each time.
    pub fn look(&mut self) -> (&[Target], Option<String>) {
        let state = std::fs::metadata(&self.path).and_then(|data| Ok((data.modified()?, data.len()))).ok();
        if state.is_some() && state == self.seen {
            return (&self.targets, None);
        }
        match read(&self.path) {
            Ok(targets) => {
                (self.targets, self.seen) = (targets, state);
                (&self.targets, None)
            }
            Err(problem) => (&self.targets, Some(problem)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_in_words() {
        let target: Target = "node=http://n1:9100".parse().unwrap();
        assert_eq!(target.url, "http://n1:9100/metrics");
        assert_eq!(
            target.labels,
            [("instance", "n1:9100"), ("job", "node")].map(|(a, b)| (a.to_string(), b.to_string())).into()
        );
        let target: Target = "vllm=https://u:p@gw:8443/a/b?c=d".parse().unwrap();
        assert_eq!(
            (target.url.as_str(), target.labels["instance"].as_str()),
            ("https://u:p@gw:8443/a/b?c=d", "gw:8443")
        );
        assert_eq!(target.shown(), "https://gw:8443/a/b?c=d");
        assert!(!"x=ftp://u:secret@n1".parse::<Target>().unwrap_err().contains("secret"));
        for (text, expected) in [
            ("http://n1:9100", "'http://n1:9100': expected JOB=URL"),
            ("=http://n1", "expected a job's name"),
            ("node=n1:9100", "expected http:// or https://"),
            ("node=ftp://n1", "expected http:// or https://"),
            ("node=http:///metrics", "expected a host"),
        ] {
            let found = text.parse::<Target>().unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        let mut watched = Watched::new(path.clone());
        assert!(watched.look().1.unwrap().contains("targets.json: No such file"));
        let text = r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "x", "rack": "r1", "__metrics_path__": "/m", "__scheme__": "https"}}]"#;
        std::fs::write(&path, text).unwrap();
        let (targets, None) = watched.look() else { panic!() };
        assert_eq!(
            targets.iter().map(|target| target.url.as_str()).collect::<Vec<_>>(),
            ["https://a:1/m", "https://b:2/m"]
        );
        assert_eq!(targets[1].labels["rack"], "r1");
        assert!(!targets[1].labels.contains_key("__scheme__"));
        std::fs::write(&path, r#"[{"targets": ["a:1"], "label": {}}]"#).unwrap();
        let (targets, problem) = watched.look();
        assert_eq!(targets.len(), 2);
        assert!(problem.unwrap().contains("unknown field `label`"));
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(watched.look(), (&[][..], None));
    }
}
