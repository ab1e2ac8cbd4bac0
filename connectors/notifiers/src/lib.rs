//! tidewatch-notifiers
