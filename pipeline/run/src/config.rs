//! Configuration in two stages: what was written (file, environment, flags), and what was checked. Every fault is
//! listed with its place; one is enough to keep the process from starting.

mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tidewatch_collect::ScrapeOptions;
use tidewatch_kafka::PROGRESS_GROUP;
use tidewatch_model::Span;
use tidewatch_sql::suggestion;
use toml::de::{DeTable, DeValue};

use crate::cleaning::Cleaning;
use crate::dimension_files::TableFile;
use crate::mapping::{From, Mapping};
use crate::rule_files::Bundled;
pub use settings::redact;
use settings::{SETTINGS, Setting};

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the log, the lake and the state live.
    pub data_dir: PathBuf,
    /// Folders or files with rules, besides the bundled ones.
    pub rules_paths: Vec<PathBuf>,
    /// Whether the bundled rules run.
    pub rules_bundled: Bundled,
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
    /// The kubelet's folder of logs, which has the names of pods.
    pub collect_pods: PathBuf,
    /// NVIDIA's library; `None` looks for libnvidia-ml.so.1 where the system has its libraries.
    pub collect_nvml_library: Option<PathBuf>,
    /// The kernel's messages; `None` is /dev/kmsg, and none with another /proc.
    pub collect_kmsg: Option<PathBuf>,
    /// Exporters whose text becomes rows of `metrics`, and of the tables that are made for what they say.
    pub scrape: ScrapeOptions,
    /// A file that names log files and journals.
    pub logs_file: Option<PathBuf>,
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
    /// What is checked of rows before they are taken.
    pub clean_rules: Cleaning,
    /// Where PostgreSQL's protocol is spoken; `None` nowhere.
    pub sql_listen: Option<SocketAddr>,
    /// Where StatsD's datagrams are taken; `None` is nowhere.
    pub statsd_listen: Option<SocketAddr>,
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
            rules_bundled: Bundled::Core,
            tables_files: vec![],
            http_address: SocketAddr::from(([127, 0, 0, 1], 7575)),
            http_token_file: None,
            http_tokens_file: None,
            http_tls_cert_file: None,
            http_tls_key_file: None,
            collect_enabled: true,
            collect_host: None,
            collect_procfs: PathBuf::from("/proc"),
            collect_pods: PathBuf::from("/var/log/pods"),
            collect_sysfs: PathBuf::from("/sys"),
            collect_nvml_library: None,
            collect_kmsg: None,
            scrape: ScrapeOptions { interval: Span::seconds(10), ..ScrapeOptions::default() },
            logs_file: None,
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
            lake_window: Span::hours(1),
            lake_flush_interval: Span::seconds(15),
            lake_retention: None,
            clean_rules: Cleaning::default(),
            sql_listen: None,
            statsd_listen: None,
            sql_workers: 2,
            sql_memory: 1 << 30,
            sql_timeout: Span::minutes(1),
            engine_idle_timeout: tidewatch_model::limits::IDLE_TIMEOUT,
            engine_memory_limit: 4 << 30,
        }
    }
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
    for setting in SETTINGS {
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
    use super::settings::{bytes, show_bytes};
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
            "environment: TIDEWATCH_RULES__BUNDLED: 'perhaps' is not true, all or false",
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
