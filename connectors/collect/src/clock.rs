//! How well the kernel's clock is kept: what it tells whoever asks (adjtimex(2)).

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;

use crate::reading::Unreadable;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClockState {
    /// Seconds by which it is still to be moved; `None` when nobody keeps it: then the number is of the last who did.
    pub offset_seconds: Option<f64>,
    /// Somebody keeps it, by the kernel's own judgement.
    pub synchronised: bool,
    /// The most that it may be wrong by, in seconds. Grows by half a millisecond a second while nobody sets it.
    pub error_max_seconds: f64,
}

/// Asks the kernel; changes nothing.
///
/// # Errors
/// Absent where the call is not allowed, as in containers with a list of calls.
pub(crate) fn ask() -> Result<ClockState, Unreadable> {
    // SAFETY: all zeroes is a valid request, that of mode 0, which only reads; the kernel fills the structure.
    let (state, told) = unsafe {
        let mut told: libc::timex = zeroed();
        (libc::adjtimex(&mut told), told)
    };
    if state < 0 {
        let error = io::Error::last_os_error();
        let absent = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
        return Err(Unreadable { reason: format!("adjtimex: {error}"), absent });
    }
    Ok(ClockState::of(state, told.status, told.offset as f64, told.maxerror as f64))
}

impl ClockState {
    fn of(state: i32, status: i32, offset: f64, error_max: f64) -> ClockState {
        let synchronised = state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0;
        let units = if status & libc::STA_NANO != 0 { 1e9 } else { 1e6 };
        ClockState {
            offset_seconds: synchronised.then_some(offset / units),
            synchronised,
            error_max_seconds: error_max / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_a_clock_that_nobody_keeps() {
        let kept = ClockState::of(libc::TIME_OK, libc::STA_NANO, -8e7, 1_500.0);
        assert_eq!((kept.offset_seconds, kept.synchronised, kept.error_max_seconds), (Some(-0.08), true, 0.0015));
        assert_eq!(ClockState::of(libc::TIME_OK, 0, 2_000.0, 0.0).offset_seconds, Some(0.002), "microseconds");
        let alone = ClockState::of(libc::TIME_ERROR, libc::STA_UNSYNC, 7.0, 1.6e7);
        assert_eq!((alone.offset_seconds, alone.synchronised, alone.error_max_seconds), (None, false, 16.0));
        assert!(!ClockState::of(libc::TIME_ERROR, 0, 0.0, 0.0).synchronised, "an error without the flag");
        assert!(ClockState::of(libc::TIME_INS, 0, 0.0, 0.0).synchronised, "a leap second to come is no error");
    }

    #[test]
    fn this_machines_clock_says_something_or_may_not_be_asked() {
        match ask() {
            Ok(state) => assert!(state.error_max_seconds >= 0.0 && state.offset_seconds.is_none_or(|s| s.abs() < 1.0)),
            Err(why) => assert!(why.absent, "{}", why.reason),
        }
    }
}
