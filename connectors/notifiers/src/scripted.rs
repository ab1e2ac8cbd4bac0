//! A receiver that answers as it is told and remembers what it was sent.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tidewatch_model::Notice;
use tidewatch_model::ports::{Delivery, Notify};

/// Answers from a script, then `Delivered` for ever.
pub struct ScriptedNotifier {
    target: String,
    script: Mutex<VecDeque<Delivery>>,
    seen: Mutex<Vec<(Notice, Delivery)>>,
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

    /// It will answer so next, before what it was to answer.
    pub fn answer(&self, delivery: Delivery) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).push_front(delivery);
    }

    /// Every notice it was sent, repeated ones too.
    pub fn seen(&self) -> Vec<Notice> {
        self.answered().into_iter().map(|(notice, _)| notice).collect()
    }

    /// The same, with what it answered.
    pub fn answered(&self) -> Vec<(Notice, Delivery)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Notify for ScriptedNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let answer = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = answer.unwrap_or(Delivery::Delivered);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((notice.clone(), answer.clone()));
        answer
    }

    fn preview(&self, notice: &Notice) -> String {
        notice.reason.clone()
    }
}
