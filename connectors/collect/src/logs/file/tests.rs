use super::*;

fn of(text: &str) -> Result<LogOptions, Vec<String>> {
    let environment = |name: &str| (name == "JOB").then(|| "j7".to_string());
    read("logs.toml", text, &environment).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_whole_file() {
    let options = of(r#"
[[source]]
name = "train"
paths = ["/scratch/*/rank*.log", "/var/log/a?.log"]
path_regex = '/scratch/(?P<user>[^/]+)/rank(?P<rank>\d+)\.log'
from = "start"
labels = { job = "${JOB}-x", rack = 7 }
zone = "Europe/Berlin"
keep = "level >= warn"
multiline = { start = '^\d' }
[[source.extract]]
preset = "hf_trainer"
steps_per_epoch = 100
[[source.extract]]
table = "train_step"
regex = 'step=(?P<step>\d+) took (?P<step_seconds>\S+)ms'
scale = { step_seconds = 0.001 }
[[source.extract]]
table = "gpu_event"
json = true
rename = { "a.b" = "kind" }

[[source]]
name = "units"
journal = { units = ["slurmd.service"], arguments = ["--merge"] }
line = '^(?P<ts>\S+) (?P<level>\w+) (?P<message>.*)$'
time_format = "%Y%m%d-%H%M%S"
multiline = "none"
"#)
    .unwrap();
    let [train, units] = options.sources.as_slice() else { panic!() };
    assert_eq!((train.labels["job"].as_str(), train.labels["rack"].as_str()), ("j7-x", "7"));
    assert_eq!((train.from, train.keep, train.extract.len()), (From::Start, Keep::From(Level::Warning), 3));
    let Extract::Preset(Preset::HfTrainer, training) = &train.extract[0] else { panic!() };
    assert_eq!(training.steps_per_epoch, Some(100.0));
    assert!(matches!(train.join, Join::Start(_)) && matches!(units.join, Join::Never));
    assert!(matches!(&units.feed, Feed::Journal { units, .. } if units == &["slurmd.service"]));
    let Feed::Files { container: None, .. } = &train.feed else { panic!() };
    assert!(matches!(&units.format, Format::Text { time: Some(_), .. }));
}

#[test]
fn every_fault_is_listed_with_its_place() {
    let faults = of(r#"colour = "blue"
[[source]]
name = "a b"
paths = ["relative.log", "/[.log"]
path_regex = '('
from = "middle"
zone = "Mars"
keep = "level >= loud"
labels = { job = "${NONE}" }
pathz = 1
[[source.extract]]
preset = "megatrn"
[[source.extract]]
table = "train_step"
regex = '(?P<lose>.)'
[[source.extract]]
table = "alert_event"
json = true
[[source]]
name = "b"
[[source]]
name = "c"
paths = ["/c"]
keep = "none"
"#)
    .unwrap_err();
    let expected = [
        "logs.toml:1:1: unknown key 'colour': expected of source",
        "logs.toml:3:8: name: expected letters, digits, _ and -, at most 64",
        "logs.toml:4:9: paths: 'relative.log': expected a path from the root",
        "logs.toml:4:9: paths: '/[.log': ",
        "logs.toml:5:14: path_regex: '(' is not a pattern: unclosed group",
        "logs.toml:6:8: from: 'middle': expected end, start",
        "logs.toml:7:8: 'Mars'",
        "logs.toml:8:8: keep: 'level >= loud': expected all",
        "logs.toml:9:10: labels: labels.job: the environment has no NONE",
        "logs.toml:10:1: unknown key 'pathz'",
        "logs.toml:12:10: preset: 'megatrn': expected megatron, deepspeed, hf_trainer, lightning",
        "logs.toml:13:1: train_step has no column 'lose' for that: expected of job, rank",
        "logs.toml:17:9: table: rows of alert_event are not made of log lines",
        "logs.toml:19:1: expected either paths",
        "logs.toml:21:1: keep leaves nothing of this source",
    ];
    for (fault, expected) in faults.iter().zip(expected) {
        let expected = expected.replace("7:8: 'Mars'", "7:8: zone: 'Mars' is not a zone");
        assert!(fault.starts_with(&expected), "{fault}\nexpected {expected}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}

#[test]
fn syntax_and_emptiness_and_a_job_that_is_missing() {
    assert!(of("[[source]\n").unwrap_err()[0].starts_with("logs.toml:1:"));
    assert_eq!(of("").unwrap_err(), ["logs.toml:1:1: no source: expected [[source]]"]);
    let twice = "[[source]]\nname = \"a\"\npaths = [\"/a\"]\n";
    assert!(of(&twice.repeat(2)).unwrap_err()[0].contains("4:1: source 'a' is there twice"));
    let faults = of(&format!("{twice}[[source.extract]]\npreset = \"megatron\"\n")).unwrap_err();
    assert!(faults[0].starts_with("logs.toml:4:1: rows of train_step need a job"), "{faults:?}");
    let options = of(&format!("{twice}container = \"cri\"\n")).unwrap();
    assert!(matches!(options.sources[0].feed, Feed::Files { container: Some(Container::Cri), .. }));
    let faults = of(&format!("{twice}container = \"podman\"\n")).unwrap_err();
    assert_eq!(faults, ["logs.toml:4:13: container: 'podman': expected cri, docker"]);
    let faults = of("[[source]]\nname = \"a\"\njournal = {}\ncontainer = \"cri\"\n").unwrap_err();
    assert!(faults[0].ends_with("a journal has no envelopes: container is for files"), "{faults:?}");
}
