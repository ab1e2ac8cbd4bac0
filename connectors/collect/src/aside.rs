//! A collector on a thread of its own: one whose reads are questions to a device, which may never answer.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::desk::Desk;

/// How long one pass waits; a healthy one takes a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// What has not answered for so long hangs.
const STUCK_AFTER: Span = Span::seconds(5);

/// Runs a collector aside: one that hangs has no rows, says for how long, and holds up nobody else.
pub(crate) struct Aside {
    table: &'static str,
    interval: Span,
    /// Until the first pass.
    collector: Option<Box<dyn Collector>>,
    desk: Option<Desk<Timestamp, Collected>>,
    stuck: Option<Span>,
}

impl Aside {
    /// The thread is started by the first pass.
    pub fn new(collector: impl Collector + 'static) -> Aside {
        let (table, interval) = (collector.table(), collector.interval());
        Aside { table, interval, collector: Some(Box::new(collector)), desk: None, stuck: None }
    }
}

impl Collector for Aside {
    fn table(&self) -> &'static str {
        self.table
    }

    fn interval(&self) -> Span {
        self.interval
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        if let Some(mut collector) = self.collector.take() {
            let work = move |questions: Receiver<Timestamp>, answers: SyncSender<Collected>| {
                let _ = questions.into_iter().map(|now| collector.collect(now)).try_for_each(|read| answers.send(read));
            };
            self.desk = Desk::open(self.table, work).ok();
        }
        let Some(desk) = &mut self.desk else { return Collected::default() };
        // What came late has the time at which it was asked for.
        let late = desk.answer(Duration::ZERO).map(|(_, collected)| collected);
        desk.ask(now, now);
        if let Some(late) = late {
            return late;
        }
        let answer = desk.answer(PATIENCE).map(|(_, collected)| collected);
        self.stuck = desk.busy_for(now).filter(|busy| *busy >= STUCK_AFTER);
        answer.unwrap_or_default()
    }

    fn stuck(&self) -> Option<Span> {
        self.stuck
    }
}
