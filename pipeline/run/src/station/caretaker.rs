//! Looks after the lake's files beside the alerts: settles windows that are over and deletes what is not needed. Sorting and
//! compressing a window takes a second or many, and no page waits for that.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

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

/// The settler and the janitor, on a thread of their own or not.
pub struct Caretaker {
    tools: Option<Tools>,
    aside: Option<Aside>,
}

struct Tools {
    settler: Settler,
    janitor: Janitor,
    cleaned_at: Option<Timestamp>,
}

struct Aside {
    rounds: Sender<Timestamp>,
    answers: Receiver<Result<Round, LakeError>>,
    /// A round is under way.
    is_busy: bool,
    thread: JoinHandle<Tools>,
}

impl Tools {
    fn round(&mut self, now: Timestamp, force: bool) -> Result<Round, LakeError> {
        let settled = self.settler.run(now, force)?;
        let mut cleaned = JanitorReport::default();
        if self.cleaned_at.is_none_or(|at| now - at >= CLEAN_INTERVAL) {
            self.cleaned_at = Some(now);
            cleaned = self.janitor.run(now)?;
        }
        Ok(Round { settled, cleaned })
    }
}

impl Caretaker {
    /// With a thread of its own, or not, as in simulations.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(settler: Settler, janitor: Janitor, aside: bool) -> io::Result<Caretaker> {
        let mut tools = Tools { settler, janitor, cleaned_at: None };
        if !aside {
            return Ok(Caretaker { tools: Some(tools), aside: None });
        }
        let (rounds, asked) = channel::<Timestamp>();
        let (answer, answers) = channel();
        let work = move || {
            for now in asked {
                if answer.send(tools.round(now, false)).is_err() {
                    break;
                }
            }
            tools
        };
        let thread = std::thread::Builder::new().name("caretaker".to_string()).spawn(work)?;
        Ok(Caretaker { tools: None, aside: Some(Aside { rounds, answers, is_busy: false, thread }) })
    }

    /// Asks for a round, unless one is under way, and says what the last one did.
    pub fn look(&mut self, now: Timestamp) -> Option<Result<Round, LakeError>> {
        let Some(aside) = &mut self.aside else { return self.tools.as_mut().map(|tools| tools.round(now, false)) };
        let done = aside.answers.try_recv().ok();
        aside.is_busy &= done.is_none();
        if !aside.is_busy {
            aside.is_busy = aside.rounds.send(now).is_ok();
        }
        done
    }

    /// The last rounds: what is under way, and one that settles every window when `force` says so.
    pub fn finish(&mut self, now: Timestamp, force: bool) -> Vec<Result<Round, LakeError>> {
        let mut done = Vec::new();
        if let Some(Aside { rounds, answers, thread, .. }) = self.aside.take() {
            drop(rounds);
            // A thread that panicked has said so, and its work is anybody's.
            self.tools = thread.join().ok();
            done.extend(answers.try_iter());
        }
        done.extend(self.tools.as_mut().map(|tools| tools.round(now, force)));
        done
    }
}
