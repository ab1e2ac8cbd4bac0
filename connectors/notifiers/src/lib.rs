//! Channels to people, one file each, behind the port [`tidewatch_model::ports::Notify`]. None of them decides anything:
//! whom to tell, when, and whether to try again comes from elsewhere.

mod chat;
mod command;
mod http;
pub mod payload;
mod scripted;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod webhook;

pub use chat::{Chat, ChatNotifier};
pub use command::CommandNotifier;
pub use scripted::ScriptedNotifier;
pub use terminal::TerminalNotifier;
pub use text::Template;
pub use webhook::WebhookNotifier;
