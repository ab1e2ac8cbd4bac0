//! A listener with SASL_SSL: PLAIN, SCRAM and OAUTHBEARER. Needs the feature `tls`.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Log, Record, TopicOptions};
use tidewatch_tests::kafka::Cluster;

/// A key for the broker, and its certificate for whoever is to trust it, by Java's own tool.
fn certificate(folder: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new("keytool").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let store = ["-alias", "broker", "-keystore", "broker.p12", "-storepass", "changeit"];
    let key = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1", "-validity", "2"];
    run(&[&key[..], &["-storetype", "PKCS12", "-keypass", "changeit"], &store].concat());
    run(&[&["-exportcert", "-rfc", "-file", "ca.pem"][..], &store].concat());
}

#[test]
fn a_secured_listener_is_a_log_too() {
    if !tidewatch_tests::has_tool("keytool") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let keystore = format!("ssl.keystore.location={}", folder.path().join("broker.p12").display());
    let modules = "org.apache.kafka.common.security";
    let jaas = |mechanism: &str, module: &str| {
        format!("listener.name.sasl_ssl.{mechanism}.sasl.jaas.config={modules}.{module} required")
    };
    let plain = format!("{} user_tide=\"watch\";", jaas("plain", "plain.PlainLoginModule"));
    let scram = format!("{};", jaas("scram-sha-256", "scram.ScramLoginModule"));
    let bearer = "unsecuredLoginStringClaim_sub=\"tide\";";
    let bearer = format!("{} {bearer}", jaas("oauthbearer", "oauthbearer.OAuthBearerLoginModule"));
    let properties = [
        "listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{extra},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{extra}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,OAUTHBEARER",
        "ssl.keystore.type=PKCS12",
        "ssl.keystore.password=changeit",
        "ssl.key.password=changeit",
        &keystore,
        &plain,
        &scram,
        &bearer,
    ];
    let Some(cluster) = Cluster::start(1, &properties) else { return };
    let brokers = cluster.brokers();
    let user = "SCRAM-SHA-256=[iterations=4096,password=watch]";
    let alter = ["--bootstrap-server", &brokers, "--alter", "--entity-type", "users", "--entity-name", "tide"];
    cluster.tool("kafka.admin.ConfigCommand", &[&alter[..], &["--add-config", user]].concat());

    let ca = folder.path().join("ca.pem").display().to_string();
    let connect = |settings: &[(&str, &str)]| {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let common =
            [("security.protocol", "SASL_SSL"), ("ssl.ca.location", ca.as_str()), ("message.timeout.ms", "8000")];
        let settings =
            common.iter().chain(settings).map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let prefix = format!("s{}-", NUMBER.fetch_add(1, Ordering::SeqCst));
        let options = KafkaOptions { brokers: cluster.extra_listeners(), prefix, settings, ..KafkaOptions::default() };
        KafkaLog::connect(options).unwrap()
    };
    let tide = [("sasl.username", "tide"), ("sasl.password", "watch")];
    tidewatch_log::contract::run(&mut || Box::new(connect(&[&[("sasl.mechanism", "PLAIN")][..], &tide].concat())));
    let unsecured = [("sasl.oauthbearer.config", "principal=tide"), ("enable.sasl.oauthbearer.unsecure.jwt", "true")];
    for settings in [
        [&[("sasl.mechanism", "SCRAM-SHA-256")][..], &tide].concat(),
        [&[("sasl.mechanism", "OAUTHBEARER")][..], &unsecured].concat(),
    ] {
        let log = connect(&settings);
        let topic = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        log.create_topic("t", &topic).unwrap();
        let record = Record { value: Some(b"x".to_vec()), timestamp: Timestamp::from_seconds(9), ..Record::default() };
        log.append("t", 0, &[record]).unwrap();
        assert_eq!(log.read("t", 0, 0, 10).unwrap().records.len(), 1, "{settings:?}");
    }
    let wrong = connect(&[("sasl.mechanism", "PLAIN"), ("sasl.username", "tide"), ("sasl.password", "guessed")]);
    let refused = wrong.topics().unwrap_err().to_string();
    assert!(refused.contains("Authentication failed") && !refused.contains("guessed"), "{refused}");
}
