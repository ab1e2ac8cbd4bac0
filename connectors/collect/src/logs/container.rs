//! What runtimes of containers put around each line that they write down: when it came, and on which stream.

use std::borrow::Cow;
use std::path::Path;

use chrono::DateTime;
use serde::Deserialize;
use tidewatch_model::Timestamp;

/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// How a runtime writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// As Kubernetes wants it of containerd and CRI-O: `2026-01-31T12:00:00.123456789Z stdout F text`.
    Cri,
    /// As Docker's driver json-file does: `{"log":"text\n","stream":"stdout","time":"2026-01-31T12:00:00.123456789Z"}`.
    Docker,
}

/// Where a container wrote a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stream {
    /// Nowhere: it has no envelope.
    #[default]
    Bare,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// All of them.
pub const STREAMS: [Stream; 3] = [Stream::Bare, Stream::Stdout, Stream::Stderr];

impl Stream {
    /// The word for it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Stream::Bare => None,
            Stream::Stdout => Some("stdout"),
            Stream::Stderr => Some("stderr"),
        }
    }

    fn of_word(word: &str) -> Option<Stream> {
        STREAMS.into_iter().find(|stream| stream.name() == Some(word))
    }
}

/// What was in an envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Inner<'a> {
    /// When the runtime had it.
    pub ts: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// What was written, without the end of its line.
    pub text: Cow<'a, [u8]>,
    /// Its line goes on in a further envelope.
    pub is_part: bool,
}

/// A line of Docker's.
#[derive(Deserialize)]
struct DockerLine<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Container {
    /// The word for it in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Container::Cri => "cri",
            Container::Docker => "docker",
        }
    }

    /// Takes the envelope off a line; `None` where it has none.
    pub fn open(self, line: &[u8]) -> Option<Inner<'_>> {
        match self {
            Container::Cri => of_cri(line),
            Container::Docker => of_docker(line),
        }
    }
}

/// A time, a stream, tags with `:` between them of which the first says whether it is a part, and the text.
fn of_cri(line: &[u8]) -> Option<Inner<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (ts, stream) = (instant(word()?)?, Stream::of_word(word()?)?);
    let is_part = match word()?.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    Some(Inner { ts, stream, text: Cow::Borrowed(words.next().unwrap_or_default()), is_part })
}

fn of_docker(line: &[u8]) -> Option<Inner<'_>> {
    let DockerLine { log, stream, time } = serde_json::from_slice(line).ok()?;
    let (ts, stream) = (instant(&time)?, Stream::of_word(&stream)?);
    let is_part = !log.ends_with('\n');
    let mut text = match log {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    if !is_part {
        match &mut text {
            Cow::Borrowed(text) => *text = &text[..text.len() - 1],
            Cow::Owned(text) => drop(text.pop()),
        }
    }
    Some(Inner { ts, stream, text, is_part })
}

fn instant(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| Timestamp(at.timestamp_micros()))
}

/// What the place of a container's file says of it: `NAMESPACE_POD_UID/CONTAINER/N.log` below /var/log/pods,
/// `POD_NAMESPACE_CONTAINER-ID.log` in /var/log/containers, and Docker's `ID/ID-json.log`.
pub fn labels_of_path(path: &str) -> Vec<(&'static str, String)> {
    let path = Path::new(path);
    let text = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or_default().to_string();
    let (name, folder) = (text(path.file_name()), path.parent());
    let container = text(folder.and_then(Path::file_name));
    let pod = text(folder.and_then(Path::parent).and_then(Path::file_name));
    if let [namespace, pod, _uid] = pod.split('_').collect::<Vec<_>>()[..] {
        return vec![("namespace", namespace.to_string()), ("pod", pod.to_string()), ("container", container)];
    }
    // A file that was rotated has more behind its name; before it, a pod's name may have dots.
    let name = name.rsplit_once(".log").map_or(name.as_str(), |(name, _)| name);
    if let [pod, namespace, container] = name.split('_').collect::<Vec<_>>()[..]
        && let Some((container, _)) = container.rsplit_once('-').filter(|(_, id)| is_id(id))
    {
        return vec![
            ("namespace", namespace.to_string()),
            ("pod", pod.to_string()),
            ("container", container.to_string()),
        ];
    }
    match name.strip_suffix("-json").filter(|id| is_id(id)) {
        Some(id) => vec![("container", id.to_string())],
        None => vec![],
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn opened(container: Container, line: &str) -> Option<(String, Stream, String, bool)> {
        let inner = container.open(line.as_bytes())?;
        let text = String::from_utf8(inner.text.into_owned()).unwrap();
        Some((inner.ts.to_string(), inner.stream, text, inner.is_part))
    }

    #[test]
    fn envelopes_of_cri() {
        let of = |line: &str| opened(Container::Cri, line);
        let at = "2026-01-31T12:00:00.123456Z".to_string();
        let expected = |stream, text: &str, is_part| Some((at.clone(), stream, text.to_string(), is_part));
        let time = "2026-01-31T12:00:00.123456789Z";
        assert_eq!(of(&format!("{time} stdout F a  b ")), expected(Stream::Stdout, "a  b ", false));
        assert_eq!(of(&format!("{time} stderr P:x:F a")), expected(Stream::Stderr, "a", true));
        assert_eq!(of(&format!("{time} stderr F:P a")), expected(Stream::Stderr, "a", false));
        assert_eq!(of(&format!("{time} stdout F ")), expected(Stream::Stdout, "", false));
        assert_eq!(of(&format!("{time} stdout F")), expected(Stream::Stdout, "", false));
        assert_eq!(of("2026-01-31T13:00:00.123456789+01:00 stdout F a"), expected(Stream::Stdout, "a", false));
        for none in ["", "a", "soon stdout F a", &format!("{time} stdin F a"), &format!("{time} stdout X a"), time] {
            assert_eq!(of(none), None, "{none}");
        }
        let bytes = [time.as_bytes(), b" stdout P \xC3"].concat();
        assert_eq!(Container::Cri.open(&bytes).unwrap().text.as_ref(), b"\xC3", "half a character");
    }

    #[test]
    fn envelopes_of_docker() {
        let of = |line: &str| opened(Container::Docker, line);
        let at = "2026-01-31T12:00:00.123456Z".to_string();
        let time = r#""time":"2026-01-31T12:00:00.123456789Z""#;
        let expected = |text: &str, is_part| Some((at.clone(), Stream::Stderr, text.to_string(), is_part));
        assert_eq!(of(&format!(r#"{{"log":"a\n","stream":"stderr",{time}}}"#)), expected("a", false));
        assert_eq!(of(&format!(r#"{{"log":"a","stream":"stderr",{time}}}"#)), expected("a", true));
        assert_eq!(of(&format!(r#"{{"log":"\n","stream":"stderr",{time}}}"#)), expected("", false));
        let more = format!(r#"{{"log":"\u003c1\u001b[0m\r\n","stream":"stderr","attrs":{{"a":"b"}},{time}}}"#);
        assert_eq!(of(&more), expected("<1\u{1b}[0m\r", false));
        for none in ["", "{}", "[]", "{\"log\":\"a\"", &format!(r#"{{"log":"a","stream":"x",{time}}}"#)] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn a_path_names_the_pod() {
        let id = "0123456789abcdef".repeat(4);
        let of = |path: &str| {
            let labels = labels_of_path(path);
            labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let uid = "6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d";
        let llama = "namespace=ml pod=llama-0 container=trainer";
        assert_eq!(of(&format!("/var/log/pods/ml_llama-0_{uid}/trainer/0.log")), llama);
        assert_eq!(of(&format!("/host/pods/ml_llama-0_{uid}/trainer/0.log.20260131-120000")), llama);
        assert_eq!(of(&format!("/var/log/containers/llama-0_ml_trainer-{id}.log")), llama);
        assert_eq!(
            of(&format!("/var/log/containers/a_b_my-side-car-{id}.log")),
            "namespace=b pod=a container=my-side-car"
        );
        let dotted = format!("/var/log/containers/app.logger-0_ml_c-{id}.log");
        for path in [dotted.clone(), format!("{dotted}.20260131-120000")] {
            assert_eq!(of(&path), "namespace=ml pod=app.logger-0 container=c", "{path}");
        }
        assert_eq!(of(&format!("/var/lib/docker/containers/{id}/{id}-json.log.1")), format!("container={id}"));
        for none in ["/var/log/app.log", "/a_b/c/0.log", "/var/log/containers/a_b_c-1.log", "0.log", ""] {
            assert_eq!(of(none), "", "{none}");
        }
    }
}
