//! Files of targets: Prometheus' `file_sd_configs`, in JSON and in YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::{Error, Visitor};
use tidewatch_model::Span;

use super::targets::Target;

/// One group of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<Text>,
    #[serde(default)]
    labels: BTreeMap<String, Text>,
}

/// A text; in YAML a whole number or a truth value that nobody quoted is one too.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct Texts;
        impl Visitor<'_> for Texts {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// The targets of a file: `[{"targets": ["host:9100"], "labels": {"job": "node", "__metrics_path__": "/metrics"}}]`, or the same in YAML, by
/// the file's ending.
pub fn read(path: &Path) -> Result<Vec<Target>, String> {
    let named = |problem: String| format!("{}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    let is_yaml = path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
    // An empty file of YAML is no list.
    let groups: Option<Vec<Group>> = match is_yaml {
        true => serde_yaml_ng::from_str(&text).map_err(|error| named(error.to_string()))?,
        false => Some(serde_json::from_str(&text).map_err(|error| named(error.to_string()))?),
    };
    let mut targets = Vec::new();
    for group in groups.unwrap_or_default() {
        let labels: BTreeMap<String, String> = group
            .labels
            .into_iter()
            .map(|(name, value)| (name, value.0))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        for Text(address) in group.targets {
            let target = target(&address, &labels).map_err(|problem| named(format!("'{address}': {problem}")))?;
            targets.push(target);
        }
    }
    Ok(targets)
}

/// What the labels that begin with `__` say of the address; the others are the target's.
fn target(address: &str, labels: &BTreeMap<String, String>) -> Result<Target, String> {
    if address.contains('/') {
        return Err("expected a host and a port: __scheme__ and __metrics_path__ are labels".to_string());
    }
    let meta = |name: &str| labels.get(name).map(String::as_str);
    let path = meta("__metrics_path__").unwrap_or("/metrics");
    let mut url = format!("{}://{address}/{}", meta("__scheme__").unwrap_or("http"), path.trim_start_matches('/'));
    for (name, value) in labels {
        let Some(name) = name.strip_prefix("__param_") else { continue };
        let before = if url.contains('?') { '&' } else { '?' };
        url += &format!("{before}{}={}", encoded(name), encoded(value));
    }
    let span = |name: &str| {
        let span =
            meta(name).map(|text| text.parse::<Span>().map_err(|error| format!("{name}: {error}"))).transpose()?;
        match span {
            Some(span) if span < Span::seconds(1) => Err(format!("{name}: {span}: expected a second at least")),
            span => Ok(span),
        }
    };
    let (interval, timeout) = (span("__scrape_interval__")?, span("__scrape_timeout__")?);
    let own = labels.iter().filter(|(name, _)| !name.starts_with("__"));
    let mut own: BTreeMap<String, String> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    own.entry("job".to_string()).or_insert_with(|| "file".to_string());
    Ok(Target { interval, timeout, ..Target::new(&url, own)? })
}

/// As a part of a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
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
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Vec<Target>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|problem| problem.replace(&folder.path().display().to_string(), ""))
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

    #[test]
    fn yaml_says_the_same() {
        let yaml = "# racks\n- targets: [a:1, 'b']\n  labels:\n    job: x\n    rack: 7\n    spare: true\n    empty: ''\n    __meta_region: eu\n    __address__: no:1\n    __metrics_path__: probe\n    __param_module: 'icmp v4'\n    __param_target: a/b\n    __scrape_interval__: 30s\n    __scrape_timeout__: 5s\n- targets:\n  - c:3\n";
        let json = r#"[{"targets": ["a:1", "b"], "labels": {"job": "x", "rack": "7", "spare": "true", "__metrics_path__": "/probe",
            "__param_module": "icmp v4", "__param_target": "a/b", "__scrape_interval__": "30s", "__scrape_timeout__": "5s"}}, {"targets": ["c:3"]}]"#;
        let targets = of("targets.yml", yaml).unwrap();
        assert_eq!(targets, of("targets.json", json).unwrap());
        assert_eq!(targets[0].url, "http://a:1/probe?module=icmp%20v4&target=a%2Fb");
        assert_eq!((targets[1].labels["instance"].as_str(), targets[1].labels.len()), ("b", 4));
        assert_eq!((targets[0].interval, targets[0].timeout), (Some(Span::seconds(30)), Some(Span::seconds(5))));
        assert_eq!((targets[2].url.as_str(), targets[2].labels["job"].as_str()), ("http://c:3/metrics", "file"));
        assert_eq!(of("empty.yaml", "# none yet\n"), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        for (name, text, expected) in [
            ("t.yml", "- targets: [a:1]\n  lables: {}\n", "/t.yml: .[0]: unknown field `lables`"),
            ("t.yml", "- targets: [a:1]\n  labels: {x: [1]}\n", "expected a string at line 2 column"),
            ("t.yml", "- targets: [a:1\n", "line 2 column 1"),
            ("t.json", "[{\"targets\": [\"a:1\"]}", "/t.json: EOF while parsing a list at line 1 column 21"),
            ("t.json", "[{\"targets\": [\"http://a:1/m\"]}]", "'http://a:1/m': expected a host and a port"),
            ("t.yml", "- targets: [a:1]\n  labels: {__scheme__: ftp}\n", "'a:1': expected http:// or https://"),
            ("t.yml", "- targets: [a:1]\n  labels: {__scrape_interval__: soon}\n", "'a:1': __scrape_interval__: "),
            ("t.yml", "- targets: [a:1]\n  labels: {__scrape_interval__: 10ms}\n", "expected a second at least"),
        ] {
            let found = of(name, text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
