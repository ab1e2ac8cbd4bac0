//! A store in memory that fails as it is told: before it wrote, or after, which is the answer that tells nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidewatch_model::ports::{Created, Store, StoreError};

/// How a put fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was written.
    Before,
    /// It was written, and the answer was lost.
    After,
}

/// A store for tests.
#[derive(Debug, Default)]
pub struct ScriptedStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Puts until one fails.
    countdown: Option<(u32, Fault)>,
}

impl ScriptedStore {
    /// The put after `after` more of them fails like this, once.
    pub fn fail_put(&self, after: u32, fault: Fault) {
        self.state().countdown = Some((after, fault));
    }

    /// Changes an object behind everybody's back.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.state().objects.get_mut(path) {
            change(bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&mut self) -> Option<Fault> {
        let (left, fault) = self.countdown.take()?;
        if left == 0 {
            return Some(fault);
        }
        self.countdown = Some((left - 1, fault));
        None
    }
}

impl Store for ScriptedStore {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Created, StoreError> {
        let mut state = self.state();
        let fault = state.fault();
        let failed = || StoreError::Io { path: path.to_string(), source: std::io::Error::other("scripted") };
        if fault == Some(Fault::Before) {
            return Err(failed());
        }
        let created = if state.objects.contains_key(path) {
            Created::Exists
        } else {
            state.objects.insert(path.to_string(), bytes.to_vec());
            Created::Now
        };
        if fault == Some(Fault::After) { Err(failed()) } else { Ok(created) }
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.state().objects.get(path).cloned().ok_or_else(|| StoreError::NotFound(path.to_string()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let state = self.state();
        let found = state.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        Ok(found.map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect())
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.state().objects.remove(path);
        Ok(())
    }

    fn local_path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}
