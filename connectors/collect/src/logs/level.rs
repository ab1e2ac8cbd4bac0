//! How grave a line is, from what it says.

use std::sync::LazyLock;

use regex::Regex;

/// How grave a line is, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Steps of a program.
    Trace,
    /// For those who look for a fault.
    Debug,
    /// Usual.
    Info,
    /// Usual, and worth a look.
    Notice,
    /// Not as it should be.
    Warning,
    /// Something failed.
    Error,
    /// All of it failed.
    Critical,
}

/// Every level, with the words for it.
const WORDS: [(Level, &[&str]); 7] = [
    (Level::Trace, &["trace"]),
    (Level::Debug, &["debug"]),
    (Level::Info, &["info", "information"]),
    (Level::Notice, &["notice"]),
    (Level::Warning, &["warning", "warn"]),
    (Level::Error, &["error", "err", "exception"]),
    (Level::Critical, &["critical", "crit", "fatal", "panic", "emerg", "emergency", "alert", "severe"]),
];

/// Bytes of a line in which its level is looked for.
const SEEN: usize = 160;

/// `E0131 12:00:00.123456 ...` of klog and glog.
static KLOG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^([IWEF])\d{4} \d\d:\d\d:\d\d").ok());
/// A word in capitals, as most loggers have it.
static CAPITALS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\b(TRACE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|ERR|CRITICAL|CRIT|FATAL|PANIC|EMERG|ALERT|SEVERE)\b")
        .ok()
});
/// `level=warn`, `[error]`, `error: ` at the beginning, and Python's `RuntimeError: `.
static OTHERS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?ix) \b(?:level|lvl|severity)["']?[=:]\s*["']?([a-z]+) | [\[<(](trace|debug|info|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal)[\])>] | ^\s*(error|warning|fatal|panic|critical)\b\s*: | ^(?:[\w.]*\.)?\w*(error|exception)\b: "#,
    )
    .ok()
});

impl Level {
    /// As it stands in the column.
    pub fn name(self) -> &'static str {
        WORDS.iter().find(|(level, _)| *level == self).map_or("", |(_, words)| words[0])
    }

    /// From a word in any case, or syslog's number (RFC 5424: 0 is the gravest, 7 is debug).
    pub fn of_word(word: &str) -> Option<Level> {
        let word = word.trim().to_ascii_lowercase();
        if let Ok(number) = word.parse::<u8>() {
            return Level::of_syslog(number);
        }
        WORDS.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(level, _)| *level)
    }

    /// From syslog's number.
    pub fn of_syslog(number: u8) -> Option<Level> {
        match number {
            0..=2 => Some(Level::Critical),
            3 => Some(Level::Error),
            4 => Some(Level::Warning),
            5 => Some(Level::Notice),
            6 => Some(Level::Info),
            7 => Some(Level::Debug),
            _ => None,
        }
    }

    /// Of a line: the first word of a level near its beginning. A traceback is an error.
    pub fn of_line(text: &str) -> Option<Level> {
        let mut end = SEEN.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let head = &text[..end];
        let letter = KLOG.as_ref().and_then(|regex| regex.captures(head)).map(|found| found[1].to_string());
        let of_letter = letter.map(|letter| match letter.as_str() {
            "I" => Level::Info,
            "W" => Level::Warning,
            "E" => Level::Error,
            _ => Level::Critical,
        });
        let of_capitals = || CAPITALS.as_ref().and_then(|regex| regex.find(head)).map(|word| word.as_str().to_string());
        let of_others = || {
            let found = OTHERS.as_ref()?.captures(head)?;
            (1..=4).find_map(|group| found.get(group)).map(|word| word.as_str().to_string())
        };
        let level = of_letter
            .or_else(|| of_capitals().and_then(|word| Level::of_word(&word)))
            .or_else(|| of_others().and_then(|word| Level::of_word(&word)));
        if text.contains("Traceback (most recent call last)") { level.max(Some(Level::Error)) } else { level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_usual_loggers() {
        for (line, level) in [
            ("2026-01-31 12:00:00,123 - trainer - WARNING - loss scale halved", Some(Level::Warning)),
            ("[2026-01-31 12:00:00,123] [INFO] [timer.py:260:stop] 0 ERROR lines", Some(Level::Info)),
            ("E0131 12:00:00.123456  4242 watchdog.cpp:12] timeout", Some(Level::Error)),
            ("F0131 12:00:00.123456  4242 a.cc:1] check failed", Some(Level::Critical)),
            ("time=2026-01-31T12:00:00Z level=warn msg=\"slow\"", Some(Level::Warning)),
            ("[error] 42#0: upstream timed out", Some(Level::Error)),
            ("error: no space left", Some(Level::Error)),
            ("torch.cuda.OutOfMemoryError: CUDA out of memory.", Some(Level::Error)),
            ("srun: error: node gpu-017 failed", None),
            ("n1:42:99 [0] NCCL WARN Call to connect failed", Some(Level::Warning)),
            ("Traceback (most recent call last):\n  File", Some(Level::Error)),
            ("12:00 INFO caught\nTraceback (most recent call last):\n", Some(Level::Error)),
            (" iteration 100/ 1000 | lm loss: 2.0", None),
            ("the loss is fatal to nobody", None),
        ] {
            assert_eq!(Level::of_line(line), level, "{line}");
        }
    }

    #[test]
    fn words_and_numbers() {
        assert_eq!(Level::of_word(" Warn "), Some(Level::Warning));
        assert_eq!(
            [Level::of_word("3"), Level::of_word("9"), Level::of_word("loud")],
            [Some(Level::Error), None, None]
        );
        assert_eq!(Level::Critical.name(), "critical");
        assert!(Level::Error > Level::Warning);
    }
}
