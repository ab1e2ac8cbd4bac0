//! What every store must do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidewatch_model::ports::{Created, Store, StoreError};

/// Runs the contract on an empty store.
///
/// # Panics
/// When the store breaks it.
pub fn run(store: &dyn Store) {
    assert!(store.list("internal/").unwrap().is_empty());
    assert_eq!(store.create("internal/a/1.json", b"one").unwrap(), Created::Now);
    assert_eq!(store.create("internal/a/1.json", b"two").unwrap(), Created::Exists);
    assert_eq!(store.get("internal/a/1.json").unwrap(), b"one", "a create never replaces");
    assert_eq!(store.create("internal/a/b/2.json", b"").unwrap(), Created::Now);
    assert_eq!(store.create("internal/ab/3.json", b"three").unwrap(), Created::Now);
    let names = |prefix: &str| {
        store.list(prefix).unwrap().into_iter().map(|(path, bytes)| format!("{path} {bytes}")).collect::<Vec<_>>()
    };
    assert_eq!(names("internal/a/"), ["internal/a/1.json 3", "internal/a/b/2.json 0"], "a prefix is a folder");
    assert_eq!(names("internal/").len(), 3);
    assert_eq!(store.get_ranges("internal/ab/3.json", &[1..3, 0..0, 4..5]).unwrap(), [&b"hr"[..], b"", b"e"]);
    assert!(
        matches!(store.get_ranges("internal/ab/3.json", &[0..1, 4..6]), Err(StoreError::Io { .. })),
        "it is shorter"
    );
    assert!(matches!(store.get_ranges("internal/none", &[0..1, 1..2]), Err(StoreError::NotFound(_))));
    assert!(matches!(store.get("internal/none"), Err(StoreError::NotFound(_))));
    store.delete("internal/a/1.json").unwrap();
    store.delete("internal/a/1.json").unwrap();
    assert_eq!(store.create("internal/a/1.json", b"again").unwrap(), Created::Now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LocalStore, ScriptedStore};

    #[test]
    fn both_stores_keep_the_contract() {
        run(&ScriptedStore::default());
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        run(&store);
        assert_eq!(std::fs::read_dir(folder.path().join("_staging")).unwrap().count(), 0);
        for path in ["../x", "/etc/x", "a/../b", ""] {
            assert!(matches!(store.create(path, b""), Err(StoreError::BadPath(_))), "{path}");
        }
    }
}
