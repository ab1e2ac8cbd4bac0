//! Random bits from the operating system.

use std::hash::{BuildHasher, Hasher, RandomState};

use tidewatch_model::ports::Random;

/// The operating system's randomness, through the keys of the standard library's hasher: enough for names that must not
/// collide, and never used for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        // Keys are drawn once per thread and then counted up, so process, time and a counter are mixed in.
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
        hasher.write_u32(std::process::id());
        hasher.finish()
    }
}
