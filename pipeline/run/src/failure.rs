//! How a command ends when it does not succeed: a message for people and an exit code for scripts.

use std::fmt;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What is printed on standard error; several lines when there are several faults.
    pub message: String,
    /// What the process exits with.
    pub code: u8,
}

/// The command did its work, and the answer is no: a check found faults, a test failed, a difference was found.
pub const NO: u8 = 1;
/// The command was asked for in a way that can't be: flags, configuration, files that can't be read.
pub const USAGE: u8 = 2;

impl Failure {
    /// The answer is no.
    pub fn no(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), code: NO }
    }

    /// It can't be asked like this.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), code: USAGE }
    }

    /// Printing failed; a reader that went away is no fault of anybody's.
    pub fn output(error: impl fmt::Display) -> Self {
        let text = error.to_string();
        let code = if text.contains("Broken pipe") { 0 } else { NO };
        Failure { message: if code == 0 { String::new() } else { format!("can't write the output: {text}") }, code }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
