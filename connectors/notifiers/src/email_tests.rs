//! The mail that is made. A real SMTP server is in pipeline/run's tests.

#![allow(clippy::unwrap_used)]

use tidewatch_model::AlertState;

use super::*;
use crate::testing::notice;

fn email(port: u16) -> Email {
    Email {
        to: addresses("Ops <ops@example.com>, b@example.com").unwrap(),
        from: addresses("tidewatch@example.com").unwrap().remove(0),
        host: "127.0.0.1".to_string(),
        port,
        hello: None,
        credentials: None,
        require_tls: false,
        server_name: None,
        ca: None,
        insecure_skip_verify: false,
        subject: Template::default(),
        text: Template::default(),
        html: None,
        headers: vec![("X-Team".to_string(), "infra\r\nBcc: evil@example.com".to_string())],
    }
}

#[test]
fn a_group_is_a_thread_and_no_line_of_ours_breaks_the_head() {
    let notifier = EmailNotifier::new("mail", email(1), "http://here", None).unwrap();
    let mut hot = notice(AlertState::Firing);
    hot.group_labels.insert("host".to_string(), "n1\r\nBcc: evil@example.com".to_string());
    let text = notifier.preview(&hot);
    let (head, body) = text.split_once("\n\n").unwrap();
    assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
    let field = |name: &str| head.lines().find(|line| line.starts_with(name)).map(str::to_string).unwrap();
    assert_eq!(field("Message-ID"), "Message-ID: <abc.tidewatch@example.com>");
    assert_eq!(field("MIME-Version"), "MIME-Version: 1.0");
    assert!(field("Content-Type").contains("text/plain; charset=utf-8"), "{head}");
    assert_eq!(field("Auto-Submitted"), "Auto-Submitted: auto-generated");
    assert_eq!(field("To"), "To: Ops <ops@example.com>, b@example.com");
    assert!(body.contains("gpu_hot (critical, firing)"), "{body}");
    let over = notifier.preview(&notice(AlertState::Resolved));
    assert!(over.contains(&field("References")), "{over}");
    let html = Email { html: Some(Template::html("<b>{{ title }}</b>").unwrap()), ..email(1) };
    let text = EmailNotifier::new("mail", html, "", None).unwrap().preview(&notice(AlertState::Firing));
    let mut odd = notice(AlertState::Firing);
    odd.group_labels.insert("host".to_string(), "<script>".to_string());
    let email = Email { html: Some(Template::html("<b>{{ title }}</b>").unwrap()), ..email(1) };
    let escaped = EmailNotifier::new("mail", email, "", None).unwrap().preview(&odd);
    assert!(escaped.contains("&lt;script&gt;</b>"), "{escaped}");
    assert!(text.contains("multipart/alternative") && text.contains("<b>[FIRING:1] gpu_hot n1</b>"), "{text}");
}

#[test]
fn addresses_that_are_none() {
    assert!(addresses("a@example.com, nobody").unwrap_err().starts_with("'nobody' is no address"));
}

#[test]
fn nobody_listens() {
    let notifier = EmailNotifier::new("mail", email(1), "", None).unwrap();
    let Delivery::Retry { error, perhaps: false, .. } = notifier.notify(&notice(AlertState::Firing)) else { panic!() };
    assert!(error.starts_with("mail: "), "{error}");
}

/// The certificate that tests of TLS use.
fn certificate(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../serve/testdata").join(name)
}

#[test]
fn a_real_server_takes_mail_refuses_it_and_hangs() {
    let Some(server) = tidewatch_tests::peers::Smtp::start(None, "") else { return };
    let to = |name: &str, timeout: Option<Span>| {
        let email = Email { to: addresses(&format!("{name}@example.com")).unwrap(), ..email(server.port) };
        EmailNotifier::new("mail", email, "", timeout).unwrap().notify(&notice(AlertState::Firing))
    };
    assert_eq!(to("ops", None), Delivery::Delivered);
    let mail: serde_json::Value = serde_json::from_str(&server.mail()).unwrap();
    assert_eq!((&mail["from"], &mail["to"][0]), (&"tidewatch@example.com".into(), &"ops@example.com".into()));
    assert!(mail["content"].as_str().unwrap().contains("gpu_hot (critical, firing)"), "{mail}");
    let Delivery::Retry { perhaps: false, error, .. } = to("busy", None) else { panic!() };
    assert!(error.contains("451") || error.contains("come back later"), "{error}");
    let Delivery::GiveUp { error } = to("never", None) else { panic!() };
    assert!(error.contains("nobody of that name"), "{error}");
    let hanging = to("hang", Some(Span::millis(300)));
    assert!(matches!(hanging, Delivery::Retry { perhaps: true, .. }), "{hanging:?}");
}

#[test]
fn nothing_is_sent_without_the_tls_that_was_asked_for() {
    let Some(plain) = tidewatch_tests::peers::Smtp::start(None, "") else { return };
    let send = |email: Email| EmailNotifier::new("mail", email, "", None).unwrap().notify(&notice(AlertState::Firing));
    let safe = |port: u16| Email { require_tls: true, host: "localhost".to_string(), ..email(port) };
    assert!(!matches!(send(safe(plain.port)), Delivery::Delivered), "the server has no STARTTLS");
    let (pem, key) = (certificate("localhost.pem"), certificate("localhost.key"));
    let Some(server) = tidewatch_tests::peers::Smtp::start(Some((&pem, &key)), "me") else { return };
    let credentials = Some(("me".to_string(), "secret".to_string()));
    let ca = Some(std::fs::read(certificate("ca.pem")).unwrap());
    let unknown = Email { credentials: credentials.clone(), ..safe(server.port) };
    assert!(!matches!(send(unknown), Delivery::Delivered), "an authority that nobody knows");
    let wrong = Email { credentials: Some(("me".into(), "guess".into())), ca: ca.clone(), ..safe(server.port) };
    let wrong = send(wrong);
    let Delivery::GiveUp { error } = &wrong else { panic!("{wrong:?}") };
    assert!(!error.contains("guess"), "{error}");
    assert_eq!(send(Email { credentials, ca, ..safe(server.port) }), Delivery::Delivered);
    let mail: serde_json::Value = serde_json::from_str(&server.mail()).unwrap();
    assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &"me".into()), "{mail}");
}
