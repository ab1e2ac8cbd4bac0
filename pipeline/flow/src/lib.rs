//! tidewatch-flow
