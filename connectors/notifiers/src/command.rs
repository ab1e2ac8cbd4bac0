//! A command: a program of the operator's, without a shell, with the webhook's body on its standard input.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidewatch_model::limits::NOTIFY_TIMEOUT;
use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, Span};

use crate::payload::webhook_body;

/// Runs a program for each notice. Exit code 0: delivered; 75 (EX_TEMPFAIL of sysexits.h), or no end in time: tried again; any other:
/// given up.
pub struct CommandNotifier {
    target: String,
    arguments: Vec<String>,
    timeout: Span,
    external_url: String,
}

/// EX_TEMPFAIL: "temporary failure", sysexits.h.
const TRY_AGAIN: i32 = 75;

impl CommandNotifier {
    /// The program and its arguments.
    pub fn new(target: &str, arguments: Vec<String>, timeout: Option<Span>, external_url: &str) -> Self {
        let timeout = timeout.unwrap_or(NOTIFY_TIMEOUT);
        CommandNotifier { target: target.to_string(), arguments, timeout, external_url: external_url.to_string() }
    }

    fn run(&self, notice: &Notice) -> Result<Delivery, std::io::Error> {
        let Some((program, arguments)) = self.arguments.split_first() else {
            return Ok(Delivery::GiveUp { error: format!("{}: no program", self.target) });
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env("TIDEWATCH_NOTICE_ID", &notice.notice_id)
            .env("TIDEWATCH_RECEIVER", &notice.receiver)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let body = webhook_body(notice, &self.external_url, 0).to_string();
        let input = child.stdin.take();
        // A program that does not read must not hold us.
        let writer = std::thread::spawn(move || input.map(|mut input| input.write_all(body.as_bytes())));
        let until = Instant::now() + Duration::from_micros(self.timeout.0.max(0) as u64);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                let error = format!("{}: did not end within {}", self.target, self.timeout);
                return Ok(Delivery::Retry { after: None, error, perhaps: true });
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        drop(writer);
        let error = format!("{}: {status}", self.target);
        Ok(match status.code() {
            Some(0) => Delivery::Delivered,
            Some(TRY_AGAIN) | None => Delivery::Retry { after: None, error, perhaps: true },
            Some(_) => Delivery::GiveUp { error },
        })
    }
}

impl Notify for CommandNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        self.run(notice).unwrap_or_else(|error| Delivery::GiveUp { error: format!("{}: {error}", self.target) })
    }

    fn preview(&self, notice: &Notice) -> String {
        format!("{}\n{:#}", self.arguments.join(" "), webhook_body(notice, &self.external_url, 0))
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
