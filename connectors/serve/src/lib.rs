//! The HTTP door: `/healthz` and `/metrics`, every route behind one authorisation layer.
//!
//! It knows nothing of rules, alerts or tables; what it shows it asks of a [`Status`].

mod access;
mod api;
mod client;
mod metrics;
mod server;
mod tls;

pub use access::{Access, Role, Token};
pub use api::{API_ROUTES, Answer, ApiRequest};
pub use client::{Asking, ask};
pub use metrics::{Metric, MetricKind, exposition};
pub use server::{ROUTES, ServeError, Server, Status};
pub use tls::Tls;
