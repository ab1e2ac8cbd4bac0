//! Work beside the steps: one piece at a time, on a thread of its own or, in simulations, at once.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

/// A worker: takes a piece of work, and gives its result back later.
pub struct Aside<Q, A> {
    way: Way<Q, A>,
    is_busy: bool,
}

enum Way<Q, A> {
    /// A result that was not fetched yet waits beside the worker.
    AtOnce {
        work: Box<dyn FnMut(Q) -> A + Send>,
        done: Option<A>,
    },
    Thread {
        questions: Sender<Q>,
        answers: Receiver<A>,
    },
}

impl<Q: Send + 'static, A: Send + 'static> Aside<Q, A> {
    /// With a thread of that name, or without one.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(name: &str, threaded: bool, mut work: impl FnMut(Q) -> A + Send + 'static) -> io::Result<Aside<Q, A>> {
        if !threaded {
            return Ok(Aside { way: Way::AtOnce { work: Box::new(work), done: None }, is_busy: false });
        }
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        let run = move || asked.into_iter().map(&mut work).try_for_each(|done| answer.send(done)).unwrap_or_default();
        std::thread::Builder::new().name(name.to_string()).spawn(run)?;
        Ok(Aside { way: Way::Thread { questions, answers }, is_busy: false })
    }

    /// Whether a piece of work is under way, or its result was not fetched.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Hands over a piece of work; only while it is not busy.
    pub fn begin(&mut self, question: Q) {
        self.is_busy = true;
        match &mut self.way {
            Way::AtOnce { work, done } => *done = Some(work(question)),
            Way::Thread { questions, .. } => {
                // Whether the thread is there is found out where its answer is looked for.
                drop(questions.send(question));
            }
        }
    }

    /// The result, once it is there.
    ///
    /// # Errors
    /// The thread has ended, which only a panic makes it do; it has said why.
    pub fn done(&mut self) -> io::Result<Option<A>> {
        let done = match &mut self.way {
            Way::AtOnce { done, .. } => done.take(),
            Way::Thread { answers, .. } => match answers.try_recv() {
                Err(TryRecvError::Disconnected) if self.is_busy => return Err(ended()),
                answer => answer.ok(),
            },
        };
        self.is_busy &= done.is_none();
        Ok(done)
    }

    /// Waits for the result of what is under way, if anything is.
    ///
    /// # Errors
    /// As [`Aside::done`].
    pub fn wait(&mut self) -> io::Result<Option<A>> {
        if let (Way::Thread { answers, .. }, true) = (&self.way, self.is_busy) {
            self.is_busy = false;
            return answers.recv().map(Some).map_err(|_| ended());
        }
        self.done()
    }
}

fn ended() -> io::Error {
    io::Error::other("it has ended with a panic")
}
