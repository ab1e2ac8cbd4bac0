//! Each channel says what its other side documents, and keeps the contract of all.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use tidewatch_model::{AlertState, Span};

use super::*;
use crate::testing::{notice, server};

fn chats(url: &str) -> Vec<(&'static str, Chat)> {
    let url = url.to_string();
    vec![
        ("slack", Chat::Slack { url: url.clone(), channel: Some("#gpus".into()), username: None }),
        ("discord", Chat::Discord { url: url.clone() }),
        ("msteams", Chat::Teams { url: url.clone() }),
        ("telegram", Chat::Telegram { api_url: url.clone(), token: "secret".into(), chat_id: "-7".into() }),
        ("pagerduty", Chat::PagerDuty { url: url.clone(), routing_key: "secret".into() }),
        ("opsgenie", Chat::Opsgenie { api_url: url.clone(), api_key: "secret".into() }),
        ("dingtalk", Chat::DingTalk { url: url.clone() }),
        ("feishu", Chat::Feishu { url: url.clone() }),
        ("wecom", Chat::WeCom { url: url.clone() }),
        ("http", Chat::Gateway { url, method: "POST".into(), headers: vec![("X-Key".into(), "secret".into())] }),
    ]
}

fn notifier(name: &str, chat: Chat) -> ChatNotifier {
    ChatNotifier::new(name, chat, Template::default(), Template::default(), "http://here")
}

fn request(chat: Chat, state: AlertState) -> (Request, Value) {
    let request = notifier("ops", chat).request(&notice(state));
    let body = body_of(&request);
    (request, body)
}

#[test]
fn every_channel_keeps_the_contract() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "delivered"),
        ("HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", "retry 7s false: HTTP 429"),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "retry none true: HTTP 500"),
        ("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", "give up: HTTP 403"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "give up: HTTP 302"),
        ("this is no HTTP\r\n\r\n", "retry none true: "),
        ("hang", "retry none true: no answer in time"),
    ] {
        for (name, _) in chats("") {
            // These three say in the body whether they took it.
            let robot = ["dingtalk", "feishu", "wecom"].contains(&name);
            let answer = if robot && answer.ends_with("ok") {
                "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"errcode\":0}"
            } else {
                answer
            };
            let (url, thread) = server(answer);
            let chat = chats(&url).into_iter().find(|(other, _)| *other == name).unwrap().1;
            let timeout = if answer == "hang" { Span::millis(100) } else { Span::seconds(10) };
            let notifier = ChatNotifier { client: Client::with_timeout(timeout), ..notifier(name, chat) };
            let delivery = notifier.notify(&notice(AlertState::Firing));
            let asked = thread.join().unwrap();
            let found = match &delivery {
                Delivery::Delivered => "delivered".to_string(),
                Delivery::Retry { after, error, perhaps } => {
                    let after = after.map_or("none".to_string(), |after| after.to_string());
                    format!("retry {after} {perhaps}: {error}")
                }
                Delivery::GiveUp { error } => format!("give up: {error}"),
            };
            let expected = expected.replace(": ", &format!(": {name}: "));
            assert!(found.starts_with(&expected), "{name}, {answer:?}: {found}");
            assert!(!found.contains("secret"), "{found}");
            assert!(asked.to_lowercase().contains("idempotency-key: abc"), "{asked}");
        }
    }
}

#[test]
fn robots_that_answer_200_and_refuse_are_asked_again() {
    for (body, problem) in [
        ("{\"errcode\":45009}", "refused with code 45009"),
        ("{\"code\":9499}", "code 9499"),
        ("<html>", "not JSON"),
        ("{}", "no code"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (url, thread) = server(Box::leak(answer.into_boxed_str()));
        let delivery = notifier("bot", Chat::WeCom { url }).notify(&notice(AlertState::Firing));
        thread.join().unwrap();
        assert!(
            matches!(&delivery, Delivery::Retry { error, perhaps: false, .. } if error.contains(problem)),
            "{delivery:?}"
        );
    }
}

#[test]
fn the_body_of_a_gateway_is_never_cut() {
    let mut many = notice(AlertState::Firing);
    many.alerts = vec![many.alerts[0].clone(); 100];
    let gateway = Chat::Gateway { url: "http://sms".into(), method: "POST".into(), headers: vec![] };
    let body = body_of(&notifier("sms", gateway.clone()).request(&many));
    assert_eq!(body["alerts"].as_array().unwrap().len(), 100);
    let json = Template::new("{\"msg\": {{ text | tojson }}}").unwrap();
    let sent = ChatNotifier::new("sms", gateway, Template::default(), json, "").request(&many);
    assert!(body_of(&sent)["msg"].as_str().unwrap().contains("and 80 more"));
}

#[test]
fn nobody_listens() {
    let delivery =
        notifier("x", Chat::Discord { url: "http://127.0.0.1:1/".to_string() }).notify(&notice(AlertState::Firing));
    let Delivery::Retry { error, .. } = delivery else { panic!("{delivery:?}") };
    assert!(error.starts_with("x: "), "{error}");
    let delivery = notifier("x", Chat::Discord { url: "no url".to_string() }).notify(&notice(AlertState::Firing));
    assert_eq!(delivery, Delivery::GiveUp { error: "x: its URL or a header is malformed".to_string() });
}

#[test]
fn bodies_are_those_that_the_other_sides_document() {
    let of = |name: &str, state| {
        let chat = chats("http://there/hook").into_iter().find(|(other, _)| *other == name).unwrap().1;
        request(chat, state)
    };
    let (_, slack) = of("slack", AlertState::Firing);
    assert_eq!(slack["channel"], "#gpus");
    assert_eq!(slack["attachments"][0]["title"], "[FIRING:1] gpu_hot n1");
    assert_eq!(slack["attachments"][0]["color"], "#d73a49");
    let text = slack["attachments"][0]["text"].as_str().unwrap();
    assert_eq!(text, "gpu_hot (critical, firing)\nhot\u{fffd}[2J\nhost=n1", "control characters do nothing");
    let (_, discord) = of("discord", AlertState::Resolved);
    assert_eq!(discord["embeds"][0]["title"], "[RESOLVED] gpu_hot n1");
    assert_eq!(discord["allowed_mentions"], json!({"parse": []}));
    let (_, teams) = of("msteams", AlertState::Firing);
    assert_eq!(teams["attachments"][0]["content"]["body"][0]["items"][0]["text"], "[FIRING:1] gpu_hot n1");
    let (telegram, body) = of("telegram", AlertState::Firing);
    assert_eq!(telegram.url, "http://there/hook/botsecret/sendMessage");
    assert_eq!(body["chat_id"], "-7");
    let (_, trigger) = of("pagerduty", AlertState::Firing);
    let (_, resolve) = of("pagerduty", AlertState::Resolved);
    assert_eq!(trigger["event_action"], "trigger");
    assert_eq!(trigger["payload"]["severity"], "critical");
    assert_eq!(trigger["payload"]["source"], "n1");
    assert_eq!((&resolve["event_action"], &resolve["dedup_key"]), (&json!("resolve"), &trigger["dedup_key"]));
    let (create, body) = of("opsgenie", AlertState::Firing);
    let (close, _) = of("opsgenie", AlertState::Resolved);
    assert_eq!(create.url, "http://there/hook/v2/alerts");
    let alias = body["alias"].as_str().unwrap();
    assert_eq!(close.url, format!("http://there/hook/v2/alerts/{alias}/close?identifierType=alias"));
    assert!(create.headers.contains(&("Authorization".to_string(), "GenieKey secret".to_string())));
    assert_eq!(body["priority"], "P1");
    for (name, field) in [("dingtalk", "/text/content"), ("feishu", "/content/text"), ("wecom", "/text/content")] {
        let (_, body) = of(name, AlertState::Firing);
        let text = body.pointer(field).unwrap().as_str().unwrap();
        assert!(text.starts_with("[FIRING:1] gpu_hot n1\n\ngpu_hot (critical"), "{name}: {text}");
    }
}

#[test]
fn templates_are_checked_and_rendered() {
    let problem = |text: &str| Template::new(text).unwrap_err();
    assert!(problem("{{ .CommonLabels.alertname }}").contains("template of Go"));
    assert!(problem("{{ title").contains("syntax error"));
    assert!(problem("{{ text | nosuch }}").contains("unknown filter"));
    let sms = Template::new(
        "to=+49&body={{ title | urlencode }}&n={{ alerts | length }}&host={{ commonLabels.host }}{{ nothing.there }}",
    )
    .unwrap();
    let gateway = Chat::Gateway { url: "http://sms".into(), method: "PUT".into(), headers: vec![] };
    let sent = ChatNotifier::new("sms", gateway, Template::default(), sms, "").request(&notice(AlertState::Firing));
    assert_eq!(
        (sent.method.as_str(), sent.body.as_str()),
        ("PUT", "to=+49&body=%5BFIRING%3A1%5D%20gpu_hot%20n1&n=1&host=n1")
    );
}
