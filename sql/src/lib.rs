//! tidewatch-sql
