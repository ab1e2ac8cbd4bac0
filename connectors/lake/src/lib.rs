//! tidewatch-lake
