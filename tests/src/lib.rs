//! tidewatch-tests
