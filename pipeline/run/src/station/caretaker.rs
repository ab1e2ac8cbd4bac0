//! Looks after the lake's files: settles windows that are over and deletes what is not needed.

use tidewatch_lake::{Janitor, JanitorReport, LakeError, SettleReport, Settler};
use tidewatch_model::{Span, Timestamp};

/// How often it deletes.
const CLEAN_INTERVAL: Span = Span::minutes(5);

/// What a round did.
#[derive(Debug, Default)]
pub struct Round {
    /// What was settled.
    pub settled: SettleReport,
    /// What was deleted.
    pub cleaned: JanitorReport,
}

/// The settler and the janitor.
pub struct Caretaker {
    settler: Settler,
    janitor: Janitor,
    cleaned_at: Option<Timestamp>,
}

impl Caretaker {
    /// With these tools.
    pub fn new(settler: Settler, janitor: Janitor) -> Caretaker {
        Caretaker { settler, janitor, cleaned_at: None }
    }

    /// One round; with `force` every window is settled, as at a clean stop.
    ///
    /// # Errors
    /// The store's: the next round does what this one did not.
    pub fn round(&mut self, now: Timestamp, force: bool) -> Result<Round, LakeError> {
        let settled = self.settler.run(now, force)?;
        let mut cleaned = JanitorReport::default();
        if self.cleaned_at.is_none_or(|at| now - at >= CLEAN_INTERVAL) {
            self.cleaned_at = Some(now);
            cleaned = self.janitor.run(now)?;
        }
        Ok(Round { settled, cleaned })
    }
}
