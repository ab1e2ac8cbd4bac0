//! Channels to people, one file each, behind the port [`tidewatch_model::ports::Notify`]. None of them decides anything:
//! whom to tell, when, and whether to try again comes from elsewhere.

pub mod payload;
mod scripted;
mod terminal;
mod webhook;

pub use scripted::ScriptedNotifier;
pub use terminal::TerminalNotifier;
pub use webhook::WebhookNotifier;
