//! A receiver that answers as it is told and remembers what it was sent.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tidewatch_model::Notice;
use tidewatch_model::ports::{Delivery, Notify};

/// Answers from a script, then `Delivered` for ever.
pub struct ScriptedNotifier {
    target: String,
    script: Mutex<VecDeque<Delivery>>,
    seen: Mutex<Vec<Notice>>,
}

impl ScriptedNotifier {
    /// With these answers.
    pub fn new(target: &str, script: impl IntoIterator<Item = Delivery>) -> Self {
        ScriptedNotifier {
            target: target.to_string(),
            script: Mutex::new(script.into_iter().collect()),
            seen: Mutex::default(),
        }
    }

    /// Every notice it was sent, repeated ones too.
    pub fn seen(&self) -> Vec<Notice> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Notify for ScriptedNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(notice.clone());
        self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Delivery::Delivered)
    }

    fn preview(&self, notice: &Notice) -> String {
        notice.reason.clone()
    }
}
