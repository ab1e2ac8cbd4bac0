//! Configuration in two stages: what was written (file, environment, flags), and what was checked. Every fault is
//! listed with its place; one is enough to keep the process from starting.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidewatch_kafka::PROGRESS_GROUP;
use tidewatch_model::Span;
use tidewatch_sql::suggestion;
use toml::de::{DeTable, DeValue};

use crate::dimension_files::TableFile;
use crate::mapping::{From, Mapping};

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the log, the lake and the state live.
    pub data_dir: PathBuf,
    /// Folders or files with rules, besides the bundled ones.
    pub rules_paths: Vec<PathBuf>,
    /// Whether the bundled rules run.
    pub rules_bundled: bool,
    /// Dimension tables: their names and files.
    pub tables_files: Vec<TableFile>,
    /// Where HTTP listens.
    pub http_address: SocketAddr,
    /// File with the bearer token that every route then asks for; needed for an address that is not loopback.
    pub http_token_file: Option<PathBuf>,
    /// File with several tokens and their roles.
    pub http_tokens_file: Option<PathBuf>,
    /// The certificate for HTTPS, with its chain.
    pub http_tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub http_tls_key_file: Option<PathBuf>,
    /// Whether this machine's metrics are collected.
    pub collect_enabled: bool,
    /// Name of this machine in its rows; `None` asks the kernel.
    pub collect_host: Option<String>,
    /// Root of /proc.
    pub collect_procfs: PathBuf,
    /// Root of /sys.
    pub collect_sysfs: PathBuf,
    /// NVIDIA's library; `None` looks for libnvidia-ml.so.1 where the system has its libraries.
    pub collect_nvml_library: Option<PathBuf>,
    /// Where alerts are posted, in Alertmanager's webhook format.
    pub webhook_url: Option<String>,
    /// Routes and receivers, as Alertmanager has them.
    pub alerting_file: Option<PathBuf>,
    /// URLs of Alertmanagers that get every alert.
    pub alerting_alertmanagers: Vec<String>,
    /// Where a heartbeat is posted, in Alertmanager's webhook format.
    pub heartbeat_url: Option<String>,
    /// How often.
    pub heartbeat_interval: Span,
    /// Kafka's brokers, `host:port`, comma separated; `None` uses the local log.
    pub kafka_brokers: Option<String>,
    /// What topics' names begin with on the cluster.
    pub kafka_prefix: String,
    /// Copies of each topic that is made; -1 leaves it to the cluster.
    pub kafka_replication: i32,
    /// The group of engines that share the work; `None` does everything alone.
    pub kafka_group: Option<String>,
    /// How many shares a group divides, when its topic is made.
    pub kafka_shares: u32,
    /// Other people's topics.
    pub kafka_topics: Vec<Mapping>,
    /// Where our topics' partitions are begun that the lake has nothing of.
    pub kafka_from: From,
    /// Settings of librdkafka.
    pub kafka_settings: Vec<(String, String)>,
    /// The bucket of the lake, `s3://BUCKET[/PREFIX]`; `None` has it in the data folder.
    pub lake_url: Option<String>,
    /// Length of the lake's event-time windows.
    pub lake_window: Span,
    /// Longest time that rows wait in memory before they are committed.
    pub lake_flush_interval: Span,
    /// How long the lake's days are kept; `None` keeps them for ever.
    pub lake_retention: Option<Span>,
    /// Where PostgreSQL's protocol is spoken; `None` nowhere.
    pub sql_listen: Option<SocketAddr>,
    /// Questions from outside that are answered at once.
    pub sql_workers: usize,
    /// Bytes that each may hold.
    pub sql_memory: u64,
    /// How long each may take.
    pub sql_timeout: Span,
    /// A source without rows for this long does not hold windows back.
    pub engine_idle_timeout: Span,
    /// Bytes that rows and windows may hold in memory.
    pub engine_memory_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("tidewatch-data"),
            rules_paths: vec![],
            rules_bundled: true,
            tables_files: vec![],
            http_address: SocketAddr::from(([127, 0, 0, 1], 7575)),
            http_token_file: None,
            http_tokens_file: None,
            http_tls_cert_file: None,
            http_tls_key_file: None,
            collect_enabled: true,
            collect_host: None,
            collect_procfs: PathBuf::from("/proc"),
            collect_sysfs: PathBuf::from("/sys"),
            collect_nvml_library: None,
            webhook_url: None,
            alerting_file: None,
            alerting_alertmanagers: vec![],
            heartbeat_url: None,
            heartbeat_interval: Span::minutes(1),
            kafka_brokers: None,
            kafka_prefix: String::new(),
            kafka_replication: -1,
            kafka_group: None,
            kafka_shares: 3,
            kafka_topics: vec![],
            kafka_from: From::Earliest,
            kafka_settings: vec![],
            lake_url: None,
            lake_window: Span::minutes(5),
            lake_flush_interval: Span::seconds(15),
            lake_retention: None,
            sql_listen: None,
            sql_workers: 2,
            sql_memory: 1 << 30,
            sql_timeout: Span::minutes(1),
            engine_idle_timeout: tidewatch_model::limits::IDLE_TIMEOUT,
            engine_memory_limit: 4 << 30,
        }
    }
}

/// One thing that can be set: `section.key` in the file, `TIDEWATCH_SECTION__KEY` in the environment.
struct Setting {
    name: &'static str,
    meaning: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
    show: fn(&Config) -> String,
}

fn optional_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

const SETTINGS: [Setting; 37] = [
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
        meaning: "whether the bundled rules run",
        set: |config, text| {
            config.rules_bundled = switch(text)?;
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
        name: "collect.nvml_library",
        meaning: "NVIDIA's library; empty looks for libnvidia-ml.so.1 where the system has its libraries",
        set: |config, text| {
            config.collect_nvml_library = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        },
        show: |config| optional_path(&config.collect_nvml_library),
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
        meaning: "other people's topics: 'TOPIC table=NAME format=json|arrow ts=s|ms|us|record from=... map=from:to', as a list",
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
        meaning: "length of the lake's event-time windows",
        set: |config, text| {
            config.lake_window = span_between(text, Span::seconds(10), Span::days(1))?;
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
pub fn librdkafka_settings(text: &str) -> Result<Vec<(String, String)>, String> {
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
fn bytes(text: &str) -> Result<u64, String> {
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

fn show_bytes(bytes: u64) -> String {
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

/// One fault of the configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault(pub String);

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the file (if any), then the environment on top of it.
///
/// # Errors
/// Every fault that was found: syntax, unknown keys with a suggestion, values that are not what they must be.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<ConfigFault>> {
    let mut config = Config::default();
    let mut faults = Vec::new();
    if let Some(file) = file {
        match std::fs::read_to_string(file) {
            Ok(text) => apply_file(&mut config, file, &text, &mut faults),
            Err(error) => faults.push(ConfigFault(format!("{}: {error}", file.display()))),
        }
    }
    apply_environment(&mut config, environment, &mut faults);
    check_together(&config, &mut faults);
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Faults that no single setting has.
pub fn check_together(config: &Config, faults: &mut Vec<ConfigFault>) {
    if config.kafka_group.is_some() && config.kafka_brokers.is_none() {
        faults
            .push(ConfigFault("kafka.group: expected kafka.brokers too: a group shares a cluster's work".to_string()));
    }
    if config.http_token_file.is_some() && config.http_tokens_file.is_some() {
        faults.push(ConfigFault("http.tokens_file: http.token_file is there too: expected one of them".to_string()));
    }
    if config.http_tls_cert_file.is_some() != config.http_tls_key_file.is_some() {
        faults.push(ConfigFault("http.tls_cert_file, http.tls_key_file: expected both or none".to_string()));
    }
    if config.kafka_group.as_deref() == Some(PROGRESS_GROUP) {
        faults.push(ConfigFault(format!(
            "kafka.group: '{PROGRESS_GROUP}' is the group that positions are told to: expected another name"
        )));
    }
    for (index, file) in config.tables_files.iter().enumerate() {
        if config.tables_files[..index].iter().any(|before| before.name == file.name) {
            faults.push(ConfigFault(format!("tables.files: table '{}' is given twice", file.name)));
        }
    }
    for (index, mapping) in config.kafka_topics.iter().enumerate() {
        if config.kafka_topics[..index].iter().any(|before| before.topic == mapping.topic) {
            // Positions are kept by topic: two readings of one would take each other's.
            faults.push(ConfigFault(format!("kafka.topics: '{}' is mapped twice", mapping.topic)));
        }
    }
    if !config.kafka_topics.is_empty() && config.kafka_brokers.is_none() {
        faults.push(ConfigFault("kafka.topics: expected kafka.brokers too".to_string()));
    }
    if !config.http_address.ip().is_loopback() && config.http_token_file.is_none() && config.http_tokens_file.is_none()
    {
        faults.push(ConfigFault(format!(
            "http.address: {} is not a loopback address: expected http.token_file too, so that not everybody may read",
            config.http_address
        )));
    }
    if let Some(listen) = config.sql_listen.filter(|listen| !listen.ip().is_loopback())
        && config.http_token_file.is_none()
        && config.http_tokens_file.is_none()
    {
        faults.push(ConfigFault(format!(
            "sql.listen: {listen} is not a loopback address: expected http.token_file too, so that not everybody may read"
        )));
    }
}

fn apply_file(config: &mut Config, file: &Path, text: &str, faults: &mut Vec<ConfigFault>) {
    let place = |offset: usize| {
        let before = &text[..offset.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
        format!("{}:{line}:{column}", file.display())
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            faults.push(ConfigFault(format!("{}: {}", place(offset), error.message())));
            return;
        }
    };
    for (section, value) in table.get_ref() {
        let DeValue::Table(keys) = value.get_ref() else {
            faults.push(unknown(&place(section.span().start), section.get_ref()));
            continue;
        };
        for (key, value) in keys {
            let name = format!("{}.{}", section.get_ref(), key.get_ref());
            let at = place(key.span().start);
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                faults.push(unknown(&at, &name));
                continue;
            };
            let set = text_of(value.get_ref()).and_then(|text| (setting.set)(config, &text));
            if let Err(message) = set {
                faults.push(ConfigFault(format!("{at}: {name}: {message}")));
            }
        }
    }
}

fn text_of(value: &DeValue) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(value) => Ok(value.as_str().to_string()),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| text_of(item.get_ref())).collect::<Result<Vec<_>, _>>()?;
            Ok(texts.join(","))
        }
        _ => Err("expected a string, a number, true or false, or a list of strings".to_string()),
    }
}

fn apply_environment(
    config: &mut Config,
    environment: impl Iterator<Item = (String, String)>,
    faults: &mut Vec<ConfigFault>,
) {
    let mut ours: Vec<(String, String)> =
        environment.filter(|(name, _)| name.starts_with("TIDEWATCH_") && name.contains("__")).collect();
    ours.sort();
    for (variable, text) in ours {
        let name = variable["TIDEWATCH_".len()..].to_lowercase().replacen("__", ".", 1);
        match SETTINGS.iter().find(|setting| setting.name == name) {
            None => faults.push(unknown(&format!("environment: {variable}"), &name)),
            Some(setting) => {
                if let Err(message) = (setting.set)(config, &text) {
                    faults.push(ConfigFault(format!("environment: {variable}: {message}")));
                }
            }
        }
    }
}

fn unknown(place: &str, name: &str) -> ConfigFault {
    let near = suggestion(name, SETTINGS.iter().map(|setting| setting.name));
    ConfigFault(format!("{place}: unknown setting '{name}'{near}"))
}

/// The settings whose names begin so, as variables of the environment of another process; none that was left as it is without.
pub fn environment_of(config: &Config, prefixes: &[&str]) -> Vec<(String, String)> {
    let wanted = SETTINGS.iter().filter(|setting| prefixes.iter().any(|prefix| setting.name.starts_with(prefix)));
    let value = |setting: &Setting| {
        let (section, key) = setting.name.split_once('.')?;
        let name = format!("TIDEWATCH_{}__{}", section.to_uppercase(), key.to_uppercase());
        Some((name, (setting.show)(config))).filter(|(_, value)| !value.is_empty())
    };
    wanted.filter_map(value).collect()
}

/// The configuration in force, as a file that would set it; what is unset is commented out.
pub fn show(config: &Config) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in &SETTINGS {
        let (of, key) = setting.name.split_once('.').unwrap_or((setting.name, ""));
        if of != section {
            text += &format!("{}[{of}]\n", if section.is_empty() { "" } else { "\n" });
            section = of;
        }
        let value = (setting.show)(config);
        let comment = if value.is_empty() { "# " } else { "" };
        text += &format!("{comment}{key} = {value:?} # {}\n", setting.meaning);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn faults_of(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let file = tempfile::Builder::new().prefix("config").suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let faults = load(Some(file.path()), environment).err().unwrap_or_default();
        let path = file.path().display().to_string();
        faults.into_iter().map(|fault| fault.0.replace(&path, "tidewatch.toml")).collect()
    }

    #[test]
    fn every_fault_is_listed_with_its_place() {
        let text = "[http]\nadress = \"x\"\naddress = \"nowhere\"\n[lake]\nwindow = \"1s\"\n[bogus]\nx = 1\n";
        let faults =
            faults_of(text, &[("TIDEWATCH_HTTP__PORT", "1"), ("TIDEWATCH_RULES__BUNDLED", "perhaps"), ("HOME", "/")]);
        let expected = [
            "tidewatch.toml:2:1: unknown setting 'http.adress'; did you mean 'http.address'?",
            "tidewatch.toml:3:1: http.address: 'nowhere' is not an address: expected one such as 127.0.0.1:7575",
            "tidewatch.toml:5:1: lake.window: 1s is outside of 10s to 1d",
            "tidewatch.toml:7:1: unknown setting 'bogus.x'",
            "environment: TIDEWATCH_HTTP__PORT: unknown setting 'http.port'",
            "environment: TIDEWATCH_RULES__BUNDLED: 'perhaps' is not true or false",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for line in expected {
            assert!(faults.iter().any(|fault| fault.starts_with(line)), "{line} is not among {faults:#?}");
        }
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let faults = faults_of("[http\naddress = 1", &[]);
        assert!(faults[0].starts_with("tidewatch.toml:1:6: "), "{faults:?}");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("512 MiB"), Ok(512 << 20));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert!(bytes("4 parsecs").is_err() && bytes("1KiB").is_err() && bytes("GiB").is_err());
        assert_eq!([show_bytes(4 << 30), show_bytes(3 << 20)], ["4GiB", "3MiB"]);
    }

    #[test]
    fn an_open_address_needs_a_token() {
        assert_eq!(faults_of("[http]\naddress = \"0.0.0.0:7575\"", &[]).len(), 1);
        assert!(faults_of("[http]\naddress = \"0.0.0.0:7575\"\ntoken_file = \"token\"", &[]).is_empty());
    }

    #[test]
    fn what_is_shown_reads_back_and_hides_the_webhook() {
        let mut config =
            Config { webhook_url: Some("https://user:pass@example.com/secret?x=1".to_string()), ..Config::default() };
        let shown = show(&config);
        assert!(
            shown.contains("https://example.com/...") && !shown.contains("secret") && !shown.contains("pass"),
            "{shown}"
        );
        config.webhook_url = None;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), show(&config)).unwrap();
        assert_eq!(load(Some(file.path()), std::iter::empty()).unwrap(), config);
    }
}
