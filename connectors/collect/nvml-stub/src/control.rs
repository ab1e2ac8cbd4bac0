//! Steering a copy of the library from a test in the same process.

use std::io;
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::scenario::Scenario;

/// A copy of the stub's library of one's own, with its own machine and a clock that stands until it is moved.
pub struct Control {
    library: Library,
    path: PathBuf,
}

impl Control {
    /// Copies the library, which cargo puts beside the running test, into a folder, and sets its scenario. A copy under
    /// another path is another library to the loader, with statics of its own: tests don't disturb each other.
    ///
    /// # Errors
    /// The library is not there, or can't be copied or loaded.
    pub fn start(folder: &Path, scenario: &Scenario) -> io::Result<Control> {
        let path = folder.join("libnvidia-ml.so.1");
        std::fs::copy(Control::built()?, &path)?;
        // The stub has no initialisers that could do harm.
        let library = unsafe { Library::new(&path) }.map_err(io::Error::other)?;
        let control = Control { library, path };
        control.scenario(scenario)?;
        control.clock(0)?;
        Ok(control)
    }

    /// Where cargo put the library: in the folder of the running test.
    ///
    /// # Errors
    /// It is not there.
    pub fn built() -> io::Result<PathBuf> {
        let test = std::env::current_exe()?;
        let folder = test.parent().unwrap_or(Path::new("."));
        let name = "libtidewatch_nvml_stub.so";
        let found = [folder.join(name), folder.join("deps").join(name)].into_iter().find(|path| path.exists());
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{} has no {name}", folder.display())))
    }

    /// Where the copy lies: what a collector is told to load.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the scenario.
    ///
    /// # Errors
    /// The library does not take it.
    pub fn scenario(&self, scenario: &Scenario) -> io::Result<()> {
        let text = serde_json::to_vec(scenario)?;
        type Set = unsafe extern "C" fn(*const u8, usize) -> u32;
        let set = unsafe { self.library.get::<Set>(b"tidewatch_stub_scenario\0") }.map_err(io::Error::other)?;
        match unsafe { set(text.as_ptr(), text.len()) } {
            0 => Ok(()),
            code => Err(io::Error::other(format!("the stub answers {code}"))),
        }
    }

    /// How often a function was called on a GPU; of waiting for its events, how often that failed.
    ///
    /// # Errors
    /// The library is not the stub.
    pub fn calls(&self, gpu: usize, name: &str) -> io::Result<u64> {
        type Count = unsafe extern "C" fn(usize, *const u8, usize) -> u64;
        let count = unsafe { self.library.get::<Count>(b"tidewatch_stub_calls\0") }.map_err(io::Error::other)?;
        Ok(unsafe { count(gpu, name.as_ptr(), name.len()) })
    }

    /// Sets the clock, in milliseconds; calls that were to hang until then return.
    ///
    /// # Errors
    /// The library is not the stub.
    pub fn clock(&self, now_ms: u64) -> io::Result<()> {
        let set = unsafe { self.library.get::<extern "C" fn(u64)>(b"tidewatch_stub_clock\0") };
        set.map_err(io::Error::other)?(now_ms);
        Ok(())
    }
}
