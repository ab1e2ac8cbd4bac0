//! Every setting: its name, what it means, how it is read from text and shown.

use std::path::PathBuf;

use tidewatch_collect::{Target, TokenFile};
use tidewatch_model::Span;

use super::Config;

/// One thing that can be set: `section.key` in the file, `TIDEWATCH_SECTION__KEY` in the environment.
pub struct Setting {
    /// `section.key`.
    pub name: &'static str,
    /// What it is, with its unit.
    pub meaning: &'static str,
    /// Takes what was written, or says what was expected.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// As it would be written; empty when it is not set. Secrets are not shown.
    pub show: fn(&Config) -> String,
}

fn optional_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

/// All of them, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "data.dir",
        meaning: "where the log, the lake and the state live",
        set: |config, text| {
            config.data_dir = path(text)?;
            Ok(())
        },
        show: |config| config.data_dir.display().to_string(),
    },
    Setting {
        name: "rules.paths",
        meaning: "rule files or folders, comma separated",
        set: |config, text| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            config.rules_paths = parts.map(path).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| config.rules_paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "rules.bundled",
        meaning: "which of the bundled rules run: true is those for every machine, all those of sql/pack too, false none",
        set: |config, text| {
            config.rules_bundled = text.parse()?;
            Ok(())
        },
        show: |config| config.rules_bundled.to_string(),
    },
    Setting {
        name: "tables.files",
        meaning: "dimension tables that rules may join: 'NAME=FILE' (.csv, .jsonl, .parquet), as a list",
        set: |config, text| {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            config.tables_files = texts.map(str::parse).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| config.tables_files.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "http.address",
        meaning: "where HTTP listens",
        set: |config, text| {
            config.http_address =
                text.parse().map_err(|_| format!("'{text}' is not an address: expected one such as 127.0.0.1:7575"))?;
            Ok(())
        },
        show: |config| config.http_address.to_string(),
    },
    Setting {
        name: "http.token_file",
        meaning: "file with the bearer token that every route asks for",
        set: |config, text| {
            config.http_token_file = Some(path(text)?);
            Ok(())
        },
        show: |config| optional_path(&config.http_token_file),
    },
    Setting {
        name: "http.tokens_file",
        meaning: "file with tokens for several people: a line 'NAME ROLE TOKEN' each; viewers look, editors silence and acknowledge too",
        set: |config, text| {
            config.http_tokens_file = Some(path(text)?);
            Ok(())
        },
        show: |config| optional_path(&config.http_tokens_file),
    },
    Setting {
        name: "http.tls_cert_file",
        meaning: "certificate with its chain, in PEM: HTTP is HTTPS then",
        set: |config, text| {
            config.http_tls_cert_file = Some(path(text)?);
            Ok(())
        },
        show: |config| optional_path(&config.http_tls_cert_file),
    },
    Setting {
        name: "http.tls_key_file",
        meaning: "the certificate's key, in PEM",
        set: |config, text| {
            config.http_tls_key_file = Some(path(text)?);
            Ok(())
        },
        show: |config| optional_path(&config.http_tls_key_file),
    },
    Setting {
        name: "collect.enabled",
        meaning: "whether this machine's metrics are collected",
        set: |config, text| {
            config.collect_enabled = switch(text)?;
            Ok(())
        },
        show: |config| config.collect_enabled.to_string(),
    },
    Setting {
        name: "collect.host",
        meaning: "name of this machine in its rows; empty asks the kernel",
        set: |config, text| {
            config.collect_host = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        },
        show: |config| config.collect_host.clone().unwrap_or_default(),
    },
    Setting {
        name: "collect.procfs",
        meaning: "root of /proc",
        set: |config, text| {
            config.collect_procfs = path(text)?;
            Ok(())
        },
        show: |config| config.collect_procfs.display().to_string(),
    },
    Setting {
        name: "collect.sysfs",
        meaning: "root of /sys",
        set: |config, text| {
            config.collect_sysfs = path(text)?;
            Ok(())
        },
        show: |config| config.collect_sysfs.display().to_string(),
    },
    Setting {
        name: "collect.pods",
        meaning: "the kubelet's folder of logs, which has the names of pods",
        set: |config, text| {
            config.collect_pods = path(text)?;
            Ok(())
        },
        show: |config| config.collect_pods.display().to_string(),
    },
    Setting {
        name: "collect.nvml_library",
        meaning: "NVIDIA's library; empty looks for libnvidia-ml.so.1 where the system has its libraries",
        set: |config, text| {
            config.collect_nvml_library = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| optional_path(&config.collect_nvml_library),
    },
    Setting {
        name: "collect.kmsg",
        meaning: "the kernel's messages; empty is /dev/kmsg, and none with another /proc. It takes root or CAP_SYSLOG to read them",
        set: |config, text| {
            config.collect_kmsg = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| optional_path(&config.collect_kmsg),
    },
    Setting {
        name: "scrape.targets",
        meaning: "exporters whose Prometheus text becomes rows of metrics, JOB=URL, comma separated; without a path it is /metrics, without a scheme http",
        set: |config, text| {
            config.scrape.targets =
                text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let target = |target: &Target| format!("{}={}", target.labels["job"], target.shown());
            config.scrape.targets.iter().map(target).collect::<Vec<_>>().join(",")
        },
    },
    Setting {
        name: "scrape.files",
        meaning: "files of such targets, in the JSON or YAML of Prometheus' file_sd_configs, comma separated; read again when they change",
        set: |config, text| {
            config.scrape.files = text.split(',').filter(|word| !word.is_empty()).map(PathBuf::from).collect();
            Ok(())
        },
        show: |config| config.scrape.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "scrape.interval",
        meaning: "how often they are asked",
        set: |config, text| {
            config.scrape.interval = span_between(text, Span::seconds(1), Span::hours(1))?;
            Ok(())
        },
        show: |config| config.scrape.interval.to_string(),
    },
    Setting {
        name: "scrape.tokens",
        meaning: "files of bearer tokens for the targets of a job, JOB=FILE, comma separated; read at every scrape",
        set: |config, text| {
            config.scrape.tokens =
                text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let token = |token: &TokenFile| format!("{}={}", token.job, token.file.display());
            config.scrape.tokens.iter().map(token).collect::<Vec<_>>().join(",")
        },
    },
    Setting {
        name: "scrape.typed",
        meaning: "tables that well-known exporters fill besides metrics: auto, all, none, or some of serve,serve_histogram,data_job,gpu,gpu_event; auto is all, but those of GPUs only on a machine that has none of its own",
        set: |config, text| {
            config.scrape.typed = text.parse()?;
            Ok(())
        },
        show: |config| config.scrape.typed.to_string(),
    },
    Setting {
        name: "logs.file",
        meaning: "a file that names log files and journals, whose lines become rows of log and of other tables (docs/logs.md)",
        set: |config, text| {
            config.logs_file = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| optional_path(&config.logs_file),
    },
    Setting {
        name: "statsd.listen",
        meaning: "where 'up' takes StatsD's datagrams, such as 127.0.0.1:8125; empty nowhere. Whoever can reach it can write metrics",
        set: |config, text| {
            let address = || text.parse().map_err(|_| format!("'{text}' is not an address such as 127.0.0.1:8125"));
            config.statsd_listen = if text.is_empty() { None } else { Some(address()?) };
            Ok(())
        },
        show: |config| config.statsd_listen.map(|address| address.to_string()).unwrap_or_default(),
    },
    Setting {
        name: "webhook.url",
        meaning: "where alerts are posted, in Alertmanager's webhook format",
        set: |config, text| {
            let good = text.starts_with("http://") || text.starts_with("https://");
            config.webhook_url = match (text.is_empty(), good) {
                (true, _) => None,
                (false, true) => Some(text.to_string()),
                (false, false) => return Err("not a URL: expected http:// or https://".to_string()),
            };
            Ok(())
        },
        // The path and query of a webhook are often its secret.
        show: |config| config.webhook_url.as_deref().map(redact).unwrap_or_default(),
    },
    Setting {
        name: "alerting.file",
        meaning: "routes and receivers, in the format of Alertmanager's configuration",
        set: |config, text| {
            config.alerting_file = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| optional_path(&config.alerting_file),
    },
    Setting {
        name: "alerting.alertmanagers",
        meaning: "URLs of Alertmanagers that get every alert, as from Prometheus, as a list",
        set: |config, text| {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            let url = |text: &str| match text.starts_with("http://") || text.starts_with("https://") {
                true => Ok(text.to_string()),
                false => Err(format!("'{text}' is not a URL: expected http:// or https://")),
            };
            config.alerting_alertmanagers = texts.map(url).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| config.alerting_alertmanagers.iter().map(|url| redact(url)).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "heartbeat.url",
        meaning: "where a heartbeat is posted as long as the engine runs well, in Alertmanager's webhook format",
        set: |config, text| {
            let good = text.starts_with("http://") || text.starts_with("https://");
            config.heartbeat_url = match (text.is_empty(), good) {
                (true, _) => None,
                (false, true) => Some(text.to_string()),
                (false, false) => return Err("not a URL: expected http:// or https://".to_string()),
            };
            Ok(())
        },
        show: |config| config.heartbeat_url.as_deref().map(redact).unwrap_or_default(),
    },
    Setting {
        name: "heartbeat.interval",
        meaning: "how often",
        set: |config, text| {
            let interval: Span = text.parse().map_err(|error| format!("{error}"))?;
            if interval < Span::seconds(1) {
                return Err("expected a second or more".to_string());
            }
            config.heartbeat_interval = interval;
            Ok(())
        },
        show: |config| config.heartbeat_interval.to_string(),
    },
    Setting {
        name: "kafka.brokers",
        meaning: "host:port of brokers, comma separated; without it the local log is used",
        set: |config, text| {
            config.kafka_brokers = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        },
        show: |config| config.kafka_brokers.clone().unwrap_or_default(),
    },
    Setting {
        name: "kafka.prefix",
        meaning: "what topics' names begin with on the cluster",
        set: |config, text| {
            let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            if !text.chars().all(good) {
                return Err(format!("'{text}' can't begin a topic's name: expected letters, digits, '.', '_' and '-'"));
            }
            config.kafka_prefix = text.to_string();
            Ok(())
        },
        show: |config| config.kafka_prefix.clone(),
    },
    Setting {
        name: "kafka.replication",
        meaning: "copies of each topic that is made; -1 leaves it to the cluster",
        set: |config, text| {
            let copies: Option<i32> = text.parse().ok().filter(|copies| *copies == -1 || (1..=100).contains(copies));
            config.kafka_replication = copies.ok_or_else(|| format!("'{text}' is not -1 or a number from 1"))?;
            Ok(())
        },
        show: |config| config.kafka_replication.to_string(),
    },
    Setting {
        name: "kafka.group",
        meaning: "the group of engines that share the work; empty does everything alone",
        set: |config, text| {
            config.kafka_group = (!text.is_empty()).then(|| text.to_string());
            Ok(())
        },
        show: |config| config.kafka_group.clone().unwrap_or_default(),
    },
    Setting {
        name: "kafka.shares",
        meaning: "shares that a group divides: most engines that help; fixed when the group first starts",
        set: |config, text| {
            let shares: Option<u32> = text.parse().ok().filter(|shares| (1..=100).contains(shares));
            config.kafka_shares = shares.ok_or_else(|| format!("'{text}' is not a number from 1 to 100"))?;
            Ok(())
        },
        show: |config| config.kafka_shares.to_string(),
    },
    Setting {
        name: "kafka.topics",
        meaning: "other people's topics: 'TOPIC table=NAME format=json|arrow|remote_write|otlp_metrics|otlp_logs ts=s|ms|us|record from=... map=from:to', as a list",
        set: |config, text| {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            config.kafka_topics = texts.map(str::parse).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| config.kafka_topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    },
    Setting {
        name: "kafka.from",
        meaning: "where partitions are begun that the lake has nothing of: earliest, latest or a time",
        set: |config, text| {
            config.kafka_from = text.parse()?;
            Ok(())
        },
        show: |config| config.kafka_from.to_string(),
    },
    Setting {
        name: "kafka.settings",
        meaning: "settings of librdkafka, name=value, as a list",
        set: |config, text| {
            config.kafka_settings = librdkafka_settings(text)?;
            Ok(())
        },
        show: |config| {
            let shown = config.kafka_settings.iter().map(|(name, value)| match is_secret(name) {
                true => format!("{name}=..."),
                false => format!("{name}={value}"),
            });
            shown.collect::<Vec<_>>().join(",")
        },
    },
    Setting {
        name: "lake.url",
        meaning: "bucket of the lake, 's3://BUCKET[/PREFIX]'; by default it lies in data.dir. Region, endpoint and credentials come from AWS_* variables",
        set: |config, text| {
            if !text.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
                return Err(format!("'{text}': expected s3://BUCKET or s3://BUCKET/PREFIX"));
            }
            config.lake_url = Some(text.trim_end_matches('/').to_string());
            Ok(())
        },
        show: |config| config.lake_url.clone().unwrap_or_default(),
    },
    Setting {
        name: "lake.window",
        meaning: "length of the event-time windows of the lake's public files",
        set: |config, text| {
            let window = span_between(text, Span::seconds(10), Span::days(1))?;
            // A file lies in the folder of one day.
            if Span::days(1).0 % window.0 != 0 {
                return Err(format!("{text} does not divide a day: expected such as 5m, 15m, 1h, 6h, 1d"));
            }
            config.lake_window = window;
            Ok(())
        },
        show: |config| config.lake_window.to_string(),
    },
    Setting {
        name: "lake.flush_interval",
        meaning: "longest time that rows wait in memory before they are committed",
        set: |config, text| {
            config.lake_flush_interval = span_between(text, Span::millis(100), Span::hours(1))?;
            Ok(())
        },
        show: |config| config.lake_flush_interval.to_string(),
    },
    Setting {
        name: "lake.retention",
        meaning: "how long days are kept in the lake, at least 2d; empty keeps them for ever",
        set: |config, text| {
            // Rows may come a day late.
            let span = |text| span_between(text, Span::days(2), Span::days(36_500));
            config.lake_retention = if text.is_empty() { None } else { Some(span(text)?) };
            Ok(())
        },
        show: |config| config.lake_retention.map(|span| span.to_string()).unwrap_or_default(),
    },
    Setting {
        name: "clean.rules",
        meaning: "what is checked of rows: 'TABLE.COLUMN unit=percent range=0..1 jump=5/s action=null|clamp|drop' or 'TABLE duplicates=drop', as a list",
        set: |config, text| {
            config.clean_rules = text.parse()?;
            Ok(())
        },
        show: |config| config.clean_rules.to_string(),
    },
    Setting {
        name: "sql.listen",
        meaning: "where 'up' serves the history over PostgreSQL's protocol, such as 127.0.0.1:5433; empty nowhere",
        set: |config, text| {
            let address = || text.parse().map_err(|_| format!("'{text}' is not an address such as 127.0.0.1:5433"));
            config.sql_listen = if text.is_empty() { None } else { Some(address()?) };
            Ok(())
        },
        show: |config| config.sql_listen.map(|address| address.to_string()).unwrap_or_default(),
    },
    Setting {
        name: "sql.workers",
        meaning: "questions from outside that are answered at once, each by a process of its own",
        set: |config, text| {
            let number = text.parse().ok().filter(|number| (1..=64).contains(number));
            config.sql_workers = number.ok_or(format!("'{text}' is not a number from 1 to 64"))?;
            Ok(())
        },
        show: |config| config.sql_workers.to_string(),
    },
    Setting {
        name: "sql.memory",
        meaning: "memory of each such process, such as 1GiB; what needs more fails",
        set: |config, text| {
            config.sql_memory = bytes(text)?;
            Ok(())
        },
        show: |config| show_bytes(config.sql_memory),
    },
    Setting {
        name: "sql.timeout",
        meaning: "how long such a question may take",
        set: |config, text| {
            config.sql_timeout = span_between(text, Span::seconds(1), Span::hours(1))?;
            Ok(())
        },
        show: |config| config.sql_timeout.to_string(),
    },
    Setting {
        name: "engine.idle_timeout",
        meaning: "a source without rows for this long does not hold windows back",
        set: |config, text| {
            config.engine_idle_timeout = span_between(text, Span::seconds(1), Span::hours(1))?;
            Ok(())
        },
        show: |config| config.engine_idle_timeout.to_string(),
    },
    Setting {
        name: "engine.memory_limit",
        meaning: "what rows and windows may hold in memory, such as 4GiB; beyond it new series are not watched, and said so",
        set: |config, text| {
            config.engine_memory_limit = bytes(text)?;
            Ok(())
        },
        show: |config| show_bytes(config.engine_memory_limit),
    },
];

/// `name=value,name=value`; a comma within a value stays where no `=` follows it.
fn librdkafka_settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut settings: Vec<(String, String)> = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match (part.split_once('='), settings.last_mut()) {
            (Some((name, value)), _) => settings.push((name.trim().to_string(), value.to_string())),
            (None, Some((_, value))) => *value = format!("{value},{part}"),
            (None, None) => return Err(format!("'{part}' is not name=value")),
        }
    }
    Ok(settings)
}

fn is_secret(name: &str) -> bool {
    // A secret may stand under a name with a slip in it.
    let of_sasl = name.starts_with("sasl.") && !["sasl.mechanism", "sasl.mechanisms", "sasl.username"].contains(&name);
    of_sasl || ["pass", "secret", "pem", "token"].iter().any(|part| name.contains(part))
}

/// `scheme://host` of a URL; the rest may be secret.
pub fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/...")
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path, found nothing".to_string()) } else { Ok(PathBuf::from(text)) }
}

/// `4GiB`, `512 MiB`, or bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size of 1MiB or more: expected one such as 4GiB");
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[end..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..end].parse().map_err(|_| wrong())?;
    count.checked_mul(1 << unit).filter(|bytes| *bytes >= 1 << 20).ok_or_else(wrong)
}

pub(super) fn show_bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes => bytes.to_string(),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("'{text}' is not true or false"))
}

fn span_between(text: &str, least: Span, most: Span) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: tidewatch_model::time::TimeError| error.to_string())?;
    if span < least || span > most {
        return Err(format!("{span} is outside of {least} to {most}"));
    }
    Ok(span)
}
