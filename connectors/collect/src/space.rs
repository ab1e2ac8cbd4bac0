//! How much space file systems have left: asked of the kernel, which asks a server that may be gone. An NFS mount without one
//! keeps whoever asks for ever, so each question is put on a thread that nobody waits for long.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use tidewatch_model::{Span, Timestamp};

use crate::desk::Desk;
use crate::reading::Unreadable;

/// How long one question is waited for; a healthy one takes microseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many of these one pass has for file systems that did not hang before.
const WAITS: usize = 3;
/// File systems that hang and have a thread each; beyond it no more are asked.
const MOST_AWAY: usize = 64;
/// What has not answered for so long hangs.
const STUCK_AFTER: Span = Span::seconds(5);

/// What a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// In all.
    pub size_bytes: i64,
    /// For users that are not root.
    pub available_bytes: i64,
    /// Files that can still be made; `None` where the file system has no such number.
    pub inodes_free: Option<i64>,
}

type Statvfs = Arc<dyn Fn(&str) -> io::Result<Space> + Send + Sync>;
type Asker = Desk<String, io::Result<Space>>;

/// Asks for space, of any mount point by itself.
pub(crate) struct Spaces {
    statvfs: Statvfs,
    desk: Option<Asker>,
    /// Threads that have not come back, by the mount point that they asked for.
    away: BTreeMap<String, Asker>,
    waits: usize,
}

impl Spaces {
    /// Of this machine.
    pub fn new() -> Spaces {
        Spaces::asking(Arc::new(statvfs))
    }

    fn asking(statvfs: Statvfs) -> Spaces {
        Spaces { statvfs, desk: None, away: BTreeMap::new(), waits: 0 }
    }

    /// A pass begins.
    pub fn begin(&mut self) {
        self.waits = 0;
    }

    /// The space of a mount point.
    ///
    /// # Errors
    /// The kernel's, or that it does not answer.
    pub fn of(&mut self, mount_point: &str, now: Timestamp) -> Result<Space, Unreadable> {
        if let Some(desk) = self.away.get_mut(mount_point) {
            if desk.answer(Duration::ZERO).is_none() && desk.is_busy() {
                let since = desk.busy_for(now).unwrap_or_default();
                return Err(Unreadable::damaged(format!("{mount_point}: statvfs has not returned for {since}")));
            }
            // What it came back with is of another moment.
            self.away.remove(mount_point);
        }
        if self.waits >= WAITS || self.away.len() >= MOST_AWAY {
            return Err(Unreadable::damaged(format!("{mount_point}: not asked, since others do not answer")));
        }
        let mut desk = match self.desk.take().filter(|desk| !desk.is_gone()) {
            Some(desk) => desk,
            None => open(&self.statvfs)?,
        };
        desk.ask(mount_point.to_string(), now);
        match desk.answer(PATIENCE) {
            Some((_, answer)) => {
                self.desk = Some(desk);
                answer.map_err(|error| Unreadable::damaged(format!("{mount_point}: {error}")))
            }
            None => {
                self.waits += 1;
                self.away.insert(mount_point.to_string(), desk);
                Err(Unreadable::damaged(format!("{mount_point}: statvfs does not return")))
            }
        }
    }

    /// Lets go of file systems that are not mounted any more.
    pub fn retain(&mut self, is_mounted: impl Fn(&str) -> bool) {
        self.away.retain(|mount_point, _| is_mounted(mount_point));
    }

    /// How long the one that hangs longest has not answered.
    pub fn stuck(&self, now: Timestamp) -> Option<Span> {
        self.away.values().filter_map(|desk| desk.busy_for(now)).max().filter(|busy| *busy >= STUCK_AFTER)
    }
}

fn open(statvfs: &Statvfs) -> Result<Asker, Unreadable> {
    let statvfs = statvfs.clone();
    let work = move |questions: Receiver<String>, answers: SyncSender<io::Result<Space>>| {
        let _ =
            questions.into_iter().map(|mount_point| statvfs(&mount_point)).try_for_each(|space| answers.send(space));
    };
    Desk::open("statvfs", work).map_err(|error| Unreadable::damaged(format!("no thread to ask for space: {error}")))
}

fn statvfs(mount_point: &str) -> io::Result<Space> {
    let found = rustix::fs::statvfs(mount_point)?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).unwrap_or(i64::MAX);
    Ok(Space {
        size_bytes: bytes(found.f_blocks),
        available_bytes: bytes(found.f_bavail),
        inodes_free: (found.f_files > 0).then(|| i64::try_from(found.f_favail).unwrap_or(i64::MAX)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    const SPACE: Space = Space { size_bytes: 10, available_bytes: 5, inodes_free: Some(1) };

    #[test]
    fn this_machines_root_has_space() {
        let space = Spaces::new().of("/", Timestamp(0)).unwrap();
        assert!(space.size_bytes >= space.available_bytes && space.available_bytes >= 0);
        assert!(Spaces::new().of("/no/such/place", Timestamp(0)).is_err());
    }

    #[test]
    fn a_server_that_is_gone_keeps_one_thread_and_nobody_else() {
        let (back, come) = channel::<()>();
        let (come, asked) = (Mutex::new(come), Arc::new(Mutex::new(0)));
        let count = asked.clone();
        let mut spaces = Spaces::asking(Arc::new(move |mount_point: &str| {
            if mount_point == "/nfs" {
                *count.lock().unwrap() += 1;
                come.lock().unwrap().recv().ok();
            }
            Ok(SPACE)
        }));
        let at = Timestamp::from_seconds;
        for second in 0..10 {
            spaces.begin();
            assert!(spaces.of("/nfs", at(second)).is_err());
            assert_eq!(spaces.of("/", at(second)).unwrap(), SPACE);
        }
        assert_eq!((*asked.lock().unwrap(), spaces.stuck(at(10))), (1, Some(Span::seconds(10))));
        let why = spaces.of("/nfs", at(9)).unwrap_err();
        assert_eq!((why.reason.as_str(), why.absent), ("/nfs: statvfs has not returned for 9s", false));
        // The server is back: so is the file system, with what it says now.
        back.send(()).unwrap();
        back.send(()).unwrap();
        let mut tries = 0;
        while spaces.of("/nfs", at(11)).is_err() {
            tries += 1;
            std::thread::yield_now();
        }
        assert_eq!((*asked.lock().unwrap(), spaces.stuck(at(20))), (2, None), "after {tries} tries");
        // Without it being mounted nobody asks after it.
        spaces.begin();
        assert!(spaces.of("/nfs", at(30)).is_err());
        spaces.retain(|mount_point| mount_point != "/nfs");
        assert_eq!(spaces.stuck(at(60)), None);
    }

    #[test]
    fn a_pass_waits_for_three_and_no_more() {
        let (_back, come) = channel::<()>();
        let come = Mutex::new(come);
        let mut spaces = Spaces::asking(Arc::new(move |_: &str| {
            come.lock().unwrap().recv().ok();
            Ok(SPACE)
        }));
        for expected in [WAITS, 2 * WAITS] {
            spaces.begin();
            for number in 0..20 {
                assert!(spaces.of(&format!("/{number}"), Timestamp(0)).is_err());
            }
            assert_eq!(spaces.away.len(), expected);
        }
    }
}
