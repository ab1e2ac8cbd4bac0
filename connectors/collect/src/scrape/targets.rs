//! What is scraped.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use tidewatch_model::Span;

/// One exporter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where its text is.
    pub url: String,
    /// Labels of all its samples: `job` and `instance`, and what a file says besides.
    pub labels: BTreeMap<String, String>,
    /// How often it is asked, if otherwise than the others.
    pub interval: Option<Span>,
    /// How long it may take.
    pub timeout: Option<Span>,
}

impl FromStr for Target {
    type Err = String;

    /// `JOB=URL`; without a path it is `/metrics`, without a scheme `http`.
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

    /// At this address.
    ///
    /// # Errors
    /// It is none of HTTP's.
    pub(super) fn new(url: &str, mut labels: BTreeMap<String, String>) -> Result<Target, String> {
        let with_scheme =
            url.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphabetic()));
        let (scheme, rest) = with_scheme.unwrap_or(("http", url));
        if !["http", "https"].contains(&scheme) {
            return Err("expected http:// or https://".to_string());
        }
        let (authority, path) = rest.split_once('/').map_or((rest, "metrics"), |(authority, path)| (authority, path));
        if authority.is_empty() || authority.starts_with(':') {
            return Err("expected a host".to_string());
        }
        let instance = authority.rsplit('@').next().unwrap_or(authority);
        labels.entry("instance".to_string()).or_insert_with(|| instance.to_string());
        Ok(Target { url: format!("{scheme}://{authority}/{path}"), labels, interval: None, timeout: None })
    }

    /// The same as seen from elsewhere: a loopback address is one on every machine, so the machine's name takes its place in `instance`.
    pub(super) fn seen_from_elsewhere(mut self, host: &str) -> Target {
        let Some(instance) = self.labels.get_mut("instance") else { return self };
        let (name, port) = match instance.strip_prefix("[::1]") {
            Some(port) => ("::1", port.to_string()),
            None => match instance.split_once(':') {
                Some((name, port)) => (name, format!(":{port}")),
                None => (instance.as_str(), String::new()),
            },
        };
        let is_loopback =
            name == "localhost" || name == "::1" || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
        if is_loopback {
            *instance = format!("{host}{port}");
        }
        self
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
        assert_eq!("node=n1:9100".parse::<Target>().unwrap(), target);
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
            ("node=:9100", "expected a host"),
            ("node=ftp://n1", "expected http:// or https://"),
            ("node=http:///metrics", "expected a host"),
        ] {
            let found = text.parse::<Target>().unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn a_loopback_address_is_the_machines() {
        for (url, expected) in [
            ("http://localhost:9100", "gpu-7:9100"),
            ("127.0.0.2:9100", "gpu-7:9100"),
            ("http://u:p@[::1]:8000/x", "gpu-7:8000"),
            ("localhost", "gpu-7"),
            ("http://localhost.example:9100", "localhost.example:9100"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[fe80::1]:80", "[fe80::1]:80"),
        ] {
            let target = format!("node={url}").parse::<Target>().unwrap();
            assert_eq!(target.clone().seen_from_elsewhere("gpu-7").labels["instance"], expected);
            assert_eq!(target.clone().seen_from_elsewhere("gpu-7").url, target.url);
        }
    }
}
