//! tidewatch-benches
