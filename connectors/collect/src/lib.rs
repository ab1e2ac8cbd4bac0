//! tidewatch-collect
