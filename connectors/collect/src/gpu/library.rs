//! Opening NVML, and the threads that call it: one opens, one per GPU reads, one per GPU waits for XIDs.

use std::ffi::OsString;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

use super::bus::kernel_address;
use super::class::{Class, class_of};
use super::pass::{Pass, Question, Reader};
use crate::desk::Desk;

/// A GPU as it names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// NVML's UUID: what it is known by.
    pub uuid: String,
    /// NVML's number, which may change at every start.
    pub index: u32,
    /// The board's name.
    pub name: String,
    /// Its place on the bus, as the kernel writes it.
    pub pci: String,
}

impl Identity {
    /// Of a GPU that does not say who it is.
    pub fn unknown(index: u32) -> Identity {
        Identity { uuid: String::new(), index, name: String::new(), pci: String::new() }
    }
}

/// An initialised library, shut down when the last thread drops it.
pub struct Session {
    // Dropped in this order: it is gone only when the shutdown has returned.
    nvml: Nvml,
    gone: Gone,
}

/// Says that a session is over.
struct Gone(Arc<AtomicBool>);

impl Session {
    /// What is true once the library is shut down.
    pub fn gone(&self) -> Arc<AtomicBool> {
        self.gone.0.clone()
    }

    /// Lets it go. The shutdown may hang as everything else: whoever looks after all GPUs must not be the one that waits.
    pub fn let_go(self: Arc<Self>) {
        // Without a thread it is kept: rather that than a supervisor that hangs.
        let kept = self.clone();
        match std::thread::Builder::new().name("nvml-close".to_string()).spawn(move || drop(self)) {
            Ok(_) => drop(kept),
            Err(_) => std::mem::forget(kept),
        }
    }
}

impl Deref for Session {
    type Target = Nvml;
    fn deref(&self) -> &Nvml {
        &self.nvml
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An open library.
pub struct Opened {
    /// The library.
    pub nvml: Arc<Session>,
    /// The driver's version.
    pub driver: String,
    /// How many GPUs it names.
    pub count: u32,
}

/// How long the one that opens waits until all threads have let the old library go: only then does it look for GPUs anew.
const LET_GO: Duration = Duration::from_secs(3);
/// How long one wait for an XID is; so late does its thread see that it is to end.
const XID_WAIT_MS: u32 = 500;

/// Why the library could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub why: String,
    /// The library is installed, and it is the driver that does not answer.
    pub is_installed: bool,
    /// The driver in the kernel is of another version: only a reload of it, or a reboot, helps.
    pub is_mismatch: bool,
}

/// The thread that opens the library: initialisation may hang as everything else. It is asked with what says that the library
/// from before is shut down.
pub type Opener = Desk<Arc<AtomicBool>, Result<Opened, Refusal>>;

/// Starts it. `path` is the library's.
pub fn opener(path: OsString) -> io::Result<Opener> {
    Desk::open("nvml-open", move |questions: Receiver<Arc<AtomicBool>>, answers| {
        for before in questions {
            let begun = Instant::now();
            while !before.load(Ordering::SeqCst) && begun.elapsed() < LET_GO {
                std::thread::sleep(Duration::from_millis(10));
            }
            if answers.send(open(&path)).is_err() {
                return;
            }
        }
    })
}

/// Opens it, on this thread.
pub fn open(path: &OsString) -> Result<Opened, Refusal> {
    let refusal = |error: NvmlError| Refusal {
        is_installed: !matches!(error, NvmlError::LibloadingError(_)),
        is_mismatch: matches!(error, NvmlError::LibRmVersionMismatch),
        why: match class_of(&error) {
            Class::Library => format!("NVML: {error}"),
            _ => format!("NVML ({}): {error}", path.display()),
        },
    };
    let nvml = Nvml::builder().lib_path(path).init().map_err(refusal)?;
    let driver = nvml.sys_driver_version().map_err(refusal)?;
    let count = nvml.device_count().map_err(refusal)?;
    Ok(Opened { nvml: Arc::new(Session { nvml, gone: Gone(Arc::default()) }), driver, count })
}

/// The thread that asks a GPU who it is: one for each, since it may hang.
pub type Introduction = Desk<(), Result<Identity, String>>;

/// Starts it, for the GPU of a number.
pub fn introduction(nvml: &Arc<Session>, index: u32) -> io::Result<Introduction> {
    let nvml = nvml.clone();
    Desk::open(&format!("gpu-{index}-who"), move |questions: Receiver<()>, answers| {
        if questions.recv().is_ok() {
            // Nobody listens any more once the library was let go.
            drop(answers.send(identity(&nvml, index).map_err(|error| error.to_string())));
        }
    })
}

/// Who the GPU of a number says it is.
pub fn identity(nvml: &Nvml, index: u32) -> Result<Identity, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?;
    // A board that can't say its name is watched all the same.
    let name = device.name().unwrap_or_default();
    let pci = device.pci_info().map(|pci| kernel_address(&pci.bus_id)).unwrap_or_default();
    Ok(Identity { uuid, index, name, pci })
}

/// The thread that reads one GPU.
pub type Worker = Desk<Question, Pass>;

/// Starts it.
pub fn worker(nvml: &Arc<Session>, identity: &Identity) -> io::Result<Worker> {
    let (nvml, identity) = (nvml.clone(), identity.clone());
    Desk::open(&format!("gpu-{}", identity.index), move |questions: Receiver<Question>, answers| {
        let mut reader: Option<Reader> = None;
        for question in questions {
            let pass = match reader.as_mut() {
                Some(reader) => reader.pass(question),
                None => match find(&nvml, &identity) {
                    Ok(device) => reader.insert(Reader::new(&nvml, device)).pass(question),
                    Err(trouble) => Pass { trouble: Some(trouble), ..Pass::default() },
                },
            };
            if pass.trouble.is_some() {
                // The next attempt looks for its handle anew.
                reader = None;
            }
            if answers.send(pass).is_err() {
                return;
            }
        }
    })
}

/// The GPU by its number, if it still is the same one. What a handle answers says how the GPU is: an error that nobody
/// knows ("Unable to determine the device handle", as nvidia-smi puts it) is a GPU that is lost.
fn find<'nvml>(nvml: &'nvml Nvml, identity: &Identity) -> Result<nvml_wrapper::Device<'nvml>, (Class, String)> {
    let found = nvml.device_by_index(identity.index).and_then(|device| Ok((device.uuid()?, device)));
    match found {
        Ok((uuid, device)) if uuid == identity.uuid => Ok(device),
        Ok((uuid, _)) => Err((Class::Library, format!("GPU {} is {uuid} now", identity.index))),
        Err(error) if class_of(&error) == Class::Library => Err((Class::Library, error.to_string())),
        Err(error) => Err((Class::Lost, error.to_string())),
    }
}

/// An XID that NVML told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xid {
    /// The GPU's UUID.
    pub uuid: String,
    /// The XID; `None` when NVML does not know which.
    pub code: Option<i64>,
    /// When it came, by the clock that never jumps.
    pub at: Instant,
}

/// Starts the thread that waits for a GPU's XIDs until it is told to stop. A GPU or driver without events ends it, and so does a
/// library that must be opened anew, since each opening starts one; after anything else it registers again.
pub fn watch_xids(
    nvml: &Arc<Session>,
    identity: &Identity,
    sender: SyncSender<Xid>,
    stop: Arc<AtomicBool>,
) -> io::Result<()> {
    let (nvml, identity) = (nvml.clone(), identity.clone());
    let name = format!("xid-{}", identity.index);
    let watch = move || {
        while let Err(error) = hear_xids(&nvml, &identity, &sender, &stop) {
            let is_over = matches!(class_of(&error), Class::Unsupported | Class::Library);
            if is_over || stop.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(u64::from(XID_WAIT_MS)));
        }
    };
    std::thread::Builder::new().name(name).spawn(watch).map(drop)
}

/// Hands on a GPU's XIDs until it is told to stop, or nobody takes them any more. A set of its own, since registering frees the
/// set at any error.
fn hear_xids(nvml: &Nvml, identity: &Identity, sender: &SyncSender<Xid>, stop: &AtomicBool) -> Result<(), NvmlError> {
    let device = nvml.device_by_index(identity.index)?;
    let wanted = EventTypes::CRITICAL_XID_ERROR;
    if !device.supported_event_types()?.contains(wanted) {
        return Err(NvmlError::NotSupported);
    }
    let set = device.register_events(wanted, nvml.create_event_set()?).map_err(|refused| refused.error)?;
    while !stop.load(Ordering::SeqCst) {
        let event = match set.wait(XID_WAIT_MS) {
            Err(NvmlError::Timeout) => continue,
            event => event?,
        };
        let code = match event.event_data {
            Some(XidError::Value(code)) => i64::try_from(code).ok(),
            _ => None,
        };
        let xid = Xid { uuid: identity.uuid.clone(), code, at: Instant::now() };
        // Beyond the bound a storm of them is no news.
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(xid) {
            return Ok(());
        }
    }
    Ok(())
}
