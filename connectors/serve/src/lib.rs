//! tidewatch-serve
