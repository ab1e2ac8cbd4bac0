//! What keeps an alert from being told: silences and inhibition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewatch_model::alert::Labels;
use tidewatch_model::{Span, Timestamp};

use super::matcher::Matcher;

/// How long a silence is kept after its end.
pub const SILENCE_KEPT: Span = Span::seconds(120 * 3_600);

/// A silence: from a start to an end, alerts that match all of its matchers are told to nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Its id, a UUID.
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// From then on.
    pub starts_at: Timestamp,
    /// Until then.
    pub ends_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// Somebody knows of an alert: what goes on is not repeated to anybody, and not escalated, until the end of the ack or of the alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The alert.
    pub fingerprint: String,
    /// When it began to fire: the next time is not meant.
    pub fired_at: Timestamp,
    /// Who knows.
    pub acked_by: String,
    /// What they say.
    pub comment: String,
    /// When they said so.
    pub acked_at: Timestamp,
    /// Until then; as long as the alert fires, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Ack {
    /// Whether it holds now for an alert that has fired since an instant.
    pub fn holds(&self, fired_at: Option<Timestamp>, now: Timestamp) -> bool {
        fired_at == Some(self.fired_at) && self.until.is_none_or(|until| now < until)
    }
}

/// Where a silence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SilenceState {
    /// It has not begun.
    Pending,
    /// It holds.
    Active,
    /// It is over.
    Expired,
}

impl Silence {
    /// Where it stands.
    pub fn state(&self, now: Timestamp) -> SilenceState {
        if now < self.starts_at {
            SilenceState::Pending
        } else if now < self.ends_at {
            SilenceState::Active
        } else {
            SilenceState::Expired
        }
    }

    /// Whether it may be made; Alertmanager's conditions.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, now: Timestamp) -> Result<(), String> {
        if self.matchers.is_empty() {
            return Err("at least one matcher required".to_string());
        }
        if self.matchers.iter().all(Matcher::matches_nothing) {
            return Err("at least one matcher must not match the empty string".to_string());
        }
        if self.ends_at <= self.starts_at {
            return Err("end time must not be before start time".to_string());
        }
        if self.ends_at <= now {
            return Err("end time can't be in the past".to_string());
        }
        Ok(())
    }

    /// Whether an alert is silenced by it now.
    pub fn mutes(&self, labels: &Labels, now: Timestamp) -> bool {
        self.state(now) == SilenceState::Active && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

/// An inhibition rule: while a source fires, targets with the same values of some labels are told to nobody.
#[derive(Debug, Clone, PartialEq)]
pub struct InhibitRule {
    /// What a source matches.
    pub sources: Vec<Matcher>,
    /// What a target matches.
    pub targets: Vec<Matcher>,
    /// The labels in which both agree; one that is missing is empty.
    pub equal: Vec<String>,
}

impl InhibitRule {
    fn is_source(&self, labels: &Labels) -> bool {
        self.sources.iter().all(|matcher| matcher.matches(labels))
    }

    fn is_target(&self, labels: &Labels) -> bool {
        self.targets.iter().all(|matcher| matcher.matches(labels))
    }

    fn values<'a>(&self, labels: &'a Labels) -> Vec<&'a str> {
        self.equal.iter().map(|name| labels.get(name).map_or("", String::as_str)).collect()
    }
}

/// The sources that fire, by rule and by what targets must agree in.
pub struct Inhibitor<'a> {
    rules: &'a [InhibitRule],
    sources: Vec<BTreeMap<Vec<&'a str>, Source<'a>>>,
}

/// Sources that agree.
struct Source<'a> {
    /// One of them.
    fingerprint: &'a str,
    /// Whether one matches only the source side: it inhibits alerts that match both sides, too.
    pure: bool,
}

impl<'a> Inhibitor<'a> {
    /// Of the alerts that fire, each with its fingerprint.
    pub fn new(rules: &'a [InhibitRule], firing: impl Iterator<Item = (&'a str, &'a Labels)>) -> Inhibitor<'a> {
        let mut sources: Vec<BTreeMap<Vec<&str>, Source>> = rules.iter().map(|_| BTreeMap::new()).collect();
        if !rules.is_empty() {
            for (fingerprint, labels) in firing {
                for (rule, sources) in rules.iter().zip(&mut sources) {
                    if rule.is_source(labels) {
                        let known = sources.entry(rule.values(labels)).or_insert(Source { fingerprint, pure: false });
                        if !known.pure && !rule.is_target(labels) {
                            *known = Source { fingerprint, pure: true };
                        }
                    }
                }
            }
        }
        Inhibitor { rules, sources }
    }

    /// The fingerprint of a source that inhibits an alert. One that matches both sides of a rule is not inhibited by others that
    /// do, nor by itself.
    pub fn source_of(&self, labels: &Labels) -> Option<&'a str> {
        self.rules.iter().zip(&self.sources).find_map(|(rule, sources)| {
            if !rule.is_target(labels) {
                return None;
            }
            let source = sources.get(&rule.values(labels))?;
            (source.pure || !rule.is_source(labels)).then_some(source.fingerprint)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::labels;
    use super::*;

    #[test]
    fn a_source_inhibits_what_agrees_with_it() {
        let rules = [InhibitRule {
            sources: Matcher::parse_all("severity=critical").unwrap(),
            targets: Matcher::parse_all("severity=~\"warning|critical\"").unwrap(),
            equal: vec!["host".to_string(), "rack".to_string()],
        }];
        let critical = labels(&[("severity", "critical"), ("host", "n1")]);
        let alerts = [("a", &critical)];
        let inhibitor = Inhibitor::new(&rules, alerts.into_iter());
        let of = |pairs| inhibitor.source_of(&labels(pairs));
        assert_eq!(of(&[("severity", "warning"), ("host", "n1")]), Some("a"));
        assert_eq!(of(&[("severity", "warning"), ("host", "n1"), ("rack", "")]), Some("a"));
        assert_eq!(of(&[("severity", "warning"), ("host", "n2")]), None);
        assert_eq!(of(&[("severity", "info"), ("host", "n1")]), None);
        // It matches both sides: neither itself nor another such inhibits it.
        assert_eq!(of(&[("severity", "critical"), ("host", "n1")]), None);
    }

    #[test]
    fn silences_have_a_beginning_and_an_end() {
        let silence = Silence {
            id: String::new(),
            matchers: Matcher::parse_all("host=n1").unwrap(),
            starts_at: Timestamp(10),
            ends_at: Timestamp(20),
            updated_at: Timestamp(0),
            created_by: "ops".to_string(),
            comment: String::new(),
        };
        let n1 = labels(&[("host", "n1")]);
        let found: Vec<bool> = [9, 10, 19, 20].map(|now| silence.mutes(&n1, Timestamp(now))).to_vec();
        assert_eq!(found, [false, true, true, false]);
        assert!(!silence.mutes(&labels(&[("host", "n2")]), Timestamp(15)));
        assert_eq!(silence.check(Timestamp(15)), Ok(()));
        assert!(silence.check(Timestamp(20)).is_err());
        let all = Silence { matchers: Matcher::parse_all("host=~.*").unwrap(), ..silence.clone() };
        assert!(all.check(Timestamp(0)).unwrap_err().contains("must not match the empty string"));
    }
}
