//! A thread that answers one question at a time, and that may never come back from one.
//!
//! A call into a wedged driver can't be ended: its thread sleeps in the kernel. So such calls are made on threads that
//! nobody joins; whoever asks goes on without them, and knows since when they are away.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tidewatch_model::{Span, Timestamp};

/// A thread and the question that it is at.
#[derive(Debug)]
pub struct Desk<Q, A> {
    questions: SyncSender<Q>,
    answers: Receiver<A>,
    asked: Option<Timestamp>,
    gone: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Desk<Q, A> {
    /// Starts the thread. It takes questions until this value is dropped, and ends when it is back from the last.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn open(name: &str, work: impl FnOnce(Receiver<Q>, SyncSender<A>) + Send + 'static) -> io::Result<Desk<Q, A>> {
        let (questions, inbox) = sync_channel(1);
        let (outbox, answers) = sync_channel(1);
        std::thread::Builder::new().name(name.to_string()).spawn(move || work(inbox, outbox))?;
        Ok(Desk { questions, answers, asked: None, gone: false })
    }

    /// Asks, unless it is still at an earlier question or has ended.
    pub fn ask(&mut self, question: Q, now: Timestamp) {
        if self.asked.is_none() && self.questions.try_send(question).is_ok() {
            self.asked = Some(now);
        }
    }

    /// The answer, with the time at which it was asked for, waiting for it at most so long.
    pub fn answer(&mut self, wait: Duration) -> Option<(Timestamp, A)> {
        let asked = self.asked?;
        match self.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.asked = None;
                Some((asked, answer))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.asked = None;
                self.gone = true;
                None
            }
        }
    }

    /// How long it has been at its question.
    pub fn busy_for(&self, now: Timestamp) -> Option<Span> {
        self.asked.map(|asked| now - asked)
    }

    /// Whether it is at a question.
    pub fn is_busy(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether the thread has ended, which only a panic or the end of its work does.
    pub fn is_gone(&self) -> bool {
        self.gone
    }
}
