//! A question's wish that what was read be committed first, so that it sees rows that were in memory until then: each once, and in
//! the same snapshot as all others. The loop of the stations carries it out between two steps.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Commits that are this young are fresh enough: many questions make no more files than one.
const FRESH: Duration = Duration::from_secs(2);
/// Longest time that a question waits; then it sees what is committed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A wish that was taken up: what was read before then is committed with it.
#[derive(Debug)]
pub struct Wish {
    number: u64,
    since: Instant,
}

/// Wishes, and how far they are carried out.
#[derive(Default)]
pub struct Fresh {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the last wish.
    asked: u64,
    /// The last that was carried out.
    done: u64,
    /// When the last that succeeded was taken up.
    done_at: Option<Instant>,
}

impl Fresh {
    /// Waits until what the log holds now is committed, as far as it is read.
    pub fn wait(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.done_at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        state.asked += 1;
        let mine = state.asked;
        let waits = |state: &mut State| state.done < mine;
        drop(self.changed.wait_timeout_while(state, PATIENCE, waits));
    }

    /// The newest wish that is not carried out, as it is taken up.
    pub fn wish(&self) -> Option<Wish> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.asked > state.done).then(|| Wish { number: state.asked, since: Instant::now() })
    }

    /// Says that a wish, and all before it, are carried out, or that they can't be.
    pub fn carried_out(&self, wish: &Wish, done: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = wish.number;
        if done {
            state.done_at = Some(wish.since);
        }
        self.changed.notify_all();
    }
}
