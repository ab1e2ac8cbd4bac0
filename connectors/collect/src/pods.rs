//! Names of pods. Control groups know pods by their UIDs; the kubelet keeps a folder of logs for each pod of the machine and calls it
//! `NAMESPACE_NAME_UID`. A pod from a file of the kubelet's (a static one) has a hash as UID, in its control group and here.
//!
//! A pod has one name as long as it is seen: alerts are told apart by it. So until a name is known or given up, there is none.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewatch_model::{Span, Timestamp};

use crate::desk::Desk;
use crate::reading::{Roots, Unreadable};
use crate::rows::Cell;

/// How often the folder is looked at, at most: only for a pod that is not known.
const LOOK: Span = Span::seconds(5);
/// How long one look is waited for; a healthy one takes microseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// What has not answered for so long hangs.
const STUCK_AFTER: Span = Span::seconds(5);
/// How long a pod with a container waits for its name: the kubelet makes the folder before the first of them.
const WAIT: Span = Span::seconds(30);
/// A pod that nobody has asked for so long is over.
const FORGET: Span = Span::minutes(10);
/// Folders that are looked at, and pods that are remembered.
const MOST: usize = 4_096;

/// Names by UID.
type Names = HashMap<String, PodName>;

/// What a look found, and what may be missing of it.
type Looked = (Names, Option<Unreadable>);

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodName {
    namespace: Option<String>,
    /// Within that; without one it is the UID.
    name: String,
}

impl PodName {
    fn of_uid(uid: &str) -> PodName {
        PodName { namespace: None, name: uid.to_string() }
    }

    /// For a row; NULL without one.
    pub fn cells(name: Option<PodName>) -> [(&'static str, Cell); 2] {
        let (namespace, name) = name.map(|PodName { namespace, name }| (namespace, name)).unzip();
        [("namespace", namespace.flatten().into()), ("pod", name.into())]
    }
}

/// Who knows the names of a machine's pods, for all collectors.
#[derive(Clone)]
pub(crate) struct Pods(Arc<Mutex<Book>>);

struct Book {
    folder: PathBuf,
    desk: Option<Desk<(), Looked>>,
    looked: Option<Timestamp>,
    /// What the last look found.
    listed: Names,
    known: HashMap<String, Known>,
    problem: Option<Unreadable>,
}

/// A pod that was asked for.
struct Known {
    /// Once it was found, or given up.
    name: Option<PodName>,
    /// Since when it has a container.
    begun: Option<Timestamp>,
    asked: Timestamp,
}

impl Pods {
    /// Of this machine.
    pub fn new(roots: &Roots) -> Pods {
        Pods(Arc::new(Mutex::new(Book {
            folder: roots.pods.clone(),
            desk: None,
            looked: None,
            listed: Names::new(),
            known: HashMap::new(),
            problem: None,
        })))
    }

    /// The name of a pod; its UID where that can't be known; and `None` as long as it may still be found. Whether it has a container
    /// says whether there should be a folder.
    pub fn name(&self, uid: &str, has_container: bool, now: Timestamp) -> Option<PodName> {
        let book = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.name(uid, has_container, now)
    }

    /// Why the folder, or something of it, could not be read, once for each time that it was.
    pub fn take_problem(&self) -> Option<Unreadable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).problem.take()
    }

    /// How long the folder has not answered.
    pub fn stuck(&self, now: Timestamp) -> Option<Span> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.desk.as_ref().and_then(|desk| desk.busy_for(now)).filter(|busy| *busy >= STUCK_AFTER)
    }
}

impl Book {
    fn name(&mut self, uid: &str, has_container: bool, now: Timestamp) -> Option<PodName> {
        if let Some(known) = self.known.get_mut(uid) {
            known.asked = now;
            if known.name.is_some() {
                return known.name.clone();
            }
        } else if self.known.len() >= MOST {
            self.known.retain(|_, known| now - known.asked < FORGET);
            if self.known.len() >= MOST {
                return Some(PodName::of_uid(uid));
            }
        }
        if !self.listed.contains_key(uid) {
            self.look(now);
        }
        let known = self.known.entry(uid.to_string()).or_insert(Known { name: None, begun: None, asked: now });
        if has_container {
            known.begun.get_or_insert(now);
        }
        let given_up = known.begun.is_some_and(|begun| now - begun >= WAIT);
        known.name = self.listed.get(uid).cloned().or_else(|| given_up.then(|| PodName::of_uid(uid)));
        known.name.clone()
    }

    fn look(&mut self, now: Timestamp) {
        let late = self.desk.as_mut().and_then(|desk| desk.answer(Duration::ZERO));
        if let Some((_, answer)) = late {
            return self.take(answer);
        }
        let is_busy = self.desk.as_ref().is_some_and(Desk::is_busy);
        if is_busy || self.looked.is_some_and(|looked| now >= looked && now - looked < LOOK) {
            return;
        }
        self.looked = Some(now);
        self.known.retain(|_, known| now - known.asked < FORGET);
        if self.desk.as_ref().is_none_or(Desk::is_gone) {
            self.desk = open(self.folder.clone()).ok();
        }
        let Some(desk) = &mut self.desk else { return };
        desk.ask((), now);
        match desk.answer(PATIENCE) {
            Some((_, answer)) => self.take(answer),
            None => self.problem = Some(Unreadable::damaged(format!("{}: no answer yet", self.folder.display()))),
        }
    }

    fn take(&mut self, (names, problem): Looked) {
        self.listed = names;
        self.problem = problem.or(self.problem.take());
    }
}

fn open(folder: PathBuf) -> std::io::Result<Desk<(), Looked>> {
    Desk::open("pods", move |questions: Receiver<()>, answers: SyncSender<Looked>| {
        let _ = questions.into_iter().map(|()| names_in(&folder)).try_for_each(|names| answers.send(names));
    })
}

fn names_in(folder: &Path) -> Looked {
    let told =
        |problem: Unreadable| Unreadable { reason: format!("{}: {}", folder.display(), problem.reason), ..problem };
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let (names, problem) = names_of(entries.map(|entry| entry.map(|entry| entry.file_name())));
            (names, problem.map(told))
        }
        Err(error) => {
            let absent = error.kind() == ErrorKind::NotFound;
            (Names::new(), Some(told(Unreadable { reason: error.to_string(), absent })))
        }
    }
}

/// The names among these of folders.
fn names_of(mut entries: impl Iterator<Item = std::io::Result<OsString>>) -> Looked {
    let (mut names, mut problem) = (Names::new(), None);
    for entry in entries.by_ref().take(MOST) {
        match entry {
            Ok(name) => names.extend(name.to_str().and_then(parsed)),
            Err(error) => problem = Some(Unreadable::damaged(error.to_string())),
        }
    }
    if entries.next().is_some() {
        problem = Some(Unreadable::damaged(format!("over {MOST} entries: the rest is not looked at")));
    }
    (names, problem)
}

/// The UID and the name of `NAMESPACE_NAME_UID`; none of the three has a `_`.
fn parsed(name: &str) -> Option<(String, PodName)> {
    let [namespace, name, uid] = name.split('_').collect::<Vec<_>>()[..] else { return None };
    let is_one = [namespace, name, uid].iter().all(|part| !part.is_empty());
    is_one.then(|| (uid.to_string(), PodName { namespace: Some(namespace.to_string()), name: name.to_string() }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;

    const UID: &str = "6e5a1b2c-0d3f-4a5b-8c9d-0e1f2a3b4c5d";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    /// `namespace/name`, or the UID.
    fn name(pods: &Pods, uid: &str, has_container: bool, now: Timestamp) -> Option<String> {
        pods.name(uid, has_container, now).map(shown)
    }

    fn shown(PodName { namespace, name }: PodName) -> String {
        namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
    }

    const AT: fn(i64) -> Timestamp = Timestamp::from_seconds;

    #[test]
    fn names_of_folders() {
        let of = |name: &str| parsed(name).map(|(uid, name)| format!("{uid} {}", shown(name))).unwrap_or_default();
        assert_eq!(of(&format!("ml_llama-0_{UID}")), format!("{UID} ml/llama-0"));
        assert_eq!(of("a_b"), "");
        assert_eq!(of("a_b_c_d"), "");
        assert_eq!(of("a__c"), "");
    }

    #[test]
    fn a_name_that_was_given_stays_and_a_new_pod_is_looked_for() {
        let machine = Recorded::of(&[(&format!("pods/ml_llama-0_{UID}/trainer/0.log"), "")]);
        machine.put(&format!("pods/kube-system_etcd-n1_{HASH}/etcd/0.log"), "");
        let pods = Pods::new(&machine.roots());
        assert_eq!(name(&pods, UID, true, AT(0)).as_deref(), Some("ml/llama-0"));
        assert_eq!(name(&pods, HASH, true, AT(0)).as_deref(), Some("kube-system/etcd-n1"), "of the same look");
        // Its folder goes before its control group.
        machine.remove(&format!("pods/ml_llama-0_{UID}"));
        assert_eq!(name(&pods, "new", false, AT(5)), None, "no container: the kubelet may not have made it yet");
        assert_eq!(name(&pods, UID, true, AT(5)).as_deref(), Some("ml/llama-0"));
        machine.put("pods/ml_late_new/c/0.log", "");
        assert_eq!(name(&pods, "new", true, AT(9)), None, "it looked a moment ago");
        assert_eq!(name(&pods, "new", true, AT(10)).as_deref(), Some("ml/late"));
        assert!(pods.take_problem().is_none() && pods.stuck(AT(99)).is_none());
    }

    #[test]
    fn a_pod_that_the_folder_does_not_name_keeps_its_uid() {
        let machine = Recorded::of(&[("pods/other", "")]);
        let pods = Pods::new(&machine.roots());
        for second in [0, 10, 200] {
            assert_eq!(name(&pods, UID, false, AT(second)), None, "it has not begun");
        }
        assert_eq!(name(&pods, UID, true, AT(300)), None);
        assert_eq!(name(&pods, UID, true, AT(330)).as_deref(), Some(UID));
        machine.put(&format!("pods/ml_llama-0_{UID}/trainer/0.log"), "");
        assert_eq!(name(&pods, UID, true, AT(340)).as_deref(), Some(UID), "for all its life");
        name(&pods, "another", true, AT(1_000));
        assert_eq!(name(&pods, UID, true, AT(1_000)).as_deref(), Some("ml/llama-0"), "it was over");
    }

    #[test]
    fn a_folder_that_cannot_be_read_may_yet_be_there() {
        // A machine without the folder, and one where it is no folder.
        let machine = Recorded::of(&[]);
        let pods = Pods::new(&machine.roots());
        assert_eq!(name(&pods, UID, true, AT(0)), None);
        assert!(pods.take_problem().is_some_and(|why| why.absent) && pods.take_problem().is_none());
        machine.put("pods", "");
        assert_eq!(name(&pods, "new", true, AT(5)), None);
        assert!(pods.take_problem().is_some_and(|why| !why.absent));
        machine.remove("pods");
        machine.put("pods/ml_late_new/c/0.log", "");
        assert_eq!(name(&pods, "new", true, AT(10)).as_deref(), Some("ml/late"));
        assert_eq!(name(&pods, UID, true, AT(29)), None);
        assert_eq!(name(&pods, UID, true, AT(30)).as_deref(), Some(UID));
    }

    #[test]
    fn what_is_missing_of_a_listing_is_said() {
        let entries = |count: usize| (0..count).map(|number| Ok(OsString::from(format!("ml_a_{number}"))));
        let (names, problem) = names_of(entries(MOST));
        assert_eq!((names.len(), problem), (MOST, None));
        let (names, problem) = names_of(entries(MOST + 1));
        assert_eq!(
            (names.len(), problem.unwrap().reason.as_str()),
            (MOST, "over 4096 entries: the rest is not looked at")
        );
        let (names, problem) =
            names_of(entries(1).chain([Err(ErrorKind::StaleNetworkFileHandle.into())]).chain(entries(2)));
        assert_eq!((names.len(), problem.unwrap().reason.as_str()), (2, "stale network file handle"));
        let machine = Recorded::of(&[("pods/ml_llama-0_0/c/0.log", "")]);
        (0..=MOST).for_each(|number| std::fs::create_dir(machine.folder().join(format!("pods/{number}"))).unwrap());
        let pods = Pods::new(&machine.roots());
        name(&pods, UID, true, AT(0));
        assert!(pods.take_problem().unwrap().reason.ends_with("pods: over 4096 entries: the rest is not looked at"));
    }

    #[test]
    fn a_folder_that_hangs_holds_up_nobody() {
        let machine = Recorded::of(&[]);
        let pods = Pods::new(&machine.roots());
        let (back, come) = std::sync::mpsc::channel::<()>();
        let work = move |questions: Receiver<()>, answers: SyncSender<Looked>| {
            for () in questions {
                come.recv().ok();
                let names = parsed(&format!("ml_llama-0_{UID}")).into_iter().collect();
                answers.send((names, None)).ok();
            }
        };
        pods.0.lock().unwrap().desk = Some(Desk::open("pods", work).unwrap());
        assert_eq!(name(&pods, UID, true, AT(0)), None);
        assert!(pods.take_problem().unwrap().reason.ends_with("pods: no answer yet"));
        let begun = std::time::Instant::now();
        (1..20).for_each(|second| assert_eq!(name(&pods, UID, true, AT(second)), None));
        assert!(begun.elapsed() < PATIENCE, "nobody waits again");
        assert_eq!(pods.stuck(AT(20)), Some(Span::seconds(20)));
        assert_eq!(name(&pods, "given up", true, AT(0)), None);
        assert_eq!(name(&pods, "given up", true, AT(29)), None);
        back.send(()).unwrap();
        while name(&pods, UID, true, AT(29)).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(name(&pods, UID, true, AT(29)).as_deref(), Some("ml/llama-0"));
        assert_eq!(pods.stuck(AT(60)), None);
        drop(back);
    }
}
