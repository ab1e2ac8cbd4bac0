//! The real promtool says the same as our lifecycle, minute by minute, where we claim to match Prometheus: three hundred random rules
//! and series. Where we differ on purpose, missing data, a test of its own says how.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fmt::Write;
use std::process::Command;

use super::tests::{evaluation, rule};
use super::*;

/// Minutes of a scenario.
const MINUTES: i64 = 40;

/// Numbers that are the same for the same seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A rule with `for` and `keep_firing_for` in minutes, and a series: `F` fires, `c` is clear, `_` gone (with a marker of staleness, so that
/// Prometheus does not look back).
struct Scenario {
    hold: i64,
    keep: i64,
    states: Vec<char>,
}

fn scenario(numbers: &mut Numbers) -> Scenario {
    let (hold, keep) = (numbers.below(6) as i64, numbers.below(5) as i64);
    let mut states = Vec::new();
    while (states.len() as i64) < MINUTES {
        let state = ['F', 'F', 'c', 'c', '_'][numbers.below(5) as usize];
        let lasts = 1 + numbers.below(7) as usize;
        states.extend(std::iter::repeat_n(state, lasts));
    }
    states.truncate(MINUTES as usize);
    Scenario { hold, keep, states }
}

/// The minutes after whose evaluation our alert fires.
fn fires(scenario: &Scenario, no_data: NoDataPolicy) -> Vec<bool> {
    let rule = rule(scenario.hold, scenario.keep, no_data);
    let mut book = AlertBook::default();
    let after = |(minute, state): (usize, &char)| {
        book.advance(&rule, &evaluation(minute as i64, *state));
        book.alive(&rule.name).any(|alert| alert.state == AlertState::Firing)
    };
    scenario.states.iter().enumerate().map(after).collect()
}

/// Runs promtool over all scenarios; what it said, when it does not agree. `None` without promtool.
fn promtool(scenarios: &[Scenario], no_data: NoDataPolicy) -> Option<Result<(), String>> {
    let folder = std::env::temp_dir().join(format!("tidewatch-promtool-{}-{no_data:?}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut rules = String::from("groups:\n- name: all\n  rules:\n");
    let mut tests = String::from("rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n");
    for (index, scenario) in scenarios.iter().enumerate() {
        let Scenario { hold, keep, states } = scenario;
        writeln!(rules, "  - {{alert: a{index}, expr: s{index} > 0, for: {hold}m, keep_firing_for: {keep}m}}").unwrap();
        let value = |state: &char| match state {
            'F' => "1",
            'c' => "0",
            _ => "stale",
        };
        let values: Vec<&str> = states.iter().map(value).collect();
        writeln!(
            tests,
            "- interval: 1m\n  input_series: [{{series: s{index}, values: '{}'}}]\n  alert_rule_test:",
            values.join(" ")
        )
        .unwrap();
        for (minute, fires) in fires(scenario, no_data).into_iter().enumerate() {
            let alerts = if fires { "[{exp_labels: {}}]" } else { "[]" };
            writeln!(tests, "  - {{eval_time: {minute}m, alertname: a{index}, exp_alerts: {alerts}}}").unwrap();
        }
    }
    std::fs::write(folder.join("rules.yml"), rules).unwrap();
    std::fs::write(folder.join("tests.yml"), tests).unwrap();
    let output = Command::new("promtool").args(["test", "rules", "tests.yml"]).current_dir(&folder).output();
    std::fs::remove_dir_all(&folder).unwrap();
    match output {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "promtool is not there: .ci/install brings it");
            eprintln!("promtool is not there: this test did not run");
            None
        }
    }
}

#[test]
fn promtool_agrees_on_three_hundred_scenarios() {
    let seed = std::env::var("TIDEWATCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("TIDEWATCH_SEED={seed}");
    let mut numbers = Numbers(seed);
    let scenarios: Vec<Scenario> = (0..300).map(|_| scenario(&mut numbers)).collect();
    let firing: usize =
        scenarios.iter().map(|known| fires(known, NoDataPolicy::Resolve).iter().filter(|f| **f).count()).sum();
    assert!(firing > 1_000, "{firing}");
    // promtool evaluates all rules of a file for each of its tests.
    for some in scenarios.chunks(20) {
        if let Some(agrees) = promtool(some, NoDataPolicy::Resolve) {
            assert_eq!(agrees, Ok(()));
        }
    }
}

/// On purpose: where a series is gone, Prometheus resolves and we keep. The first scenario with a gap while it fires tells them apart.
#[test]
fn what_goes_missing_resolves_in_prometheus_and_not_here() {
    let gap = Scenario { hold: 1, keep: 0, states: "ccFFFF____cccccccccc".chars().collect() };
    assert!(fires(&gap, NoDataPolicy::Keep)[6..10].iter().all(|fires| *fires), "kept");
    assert!(fires(&gap, NoDataPolicy::Resolve)[6..10].iter().all(|fires| !*fires), "as in Prometheus");
    if let Some(agrees) = promtool(&[gap], NoDataPolicy::Keep) {
        assert!(agrees.unwrap_err().contains("a0"), "promtool does not say what we say");
    }
}
