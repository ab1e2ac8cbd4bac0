//! tidewatch-log
