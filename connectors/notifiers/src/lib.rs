//! Channels to people, one file each, behind the port [`tidewatch_model::ports::Notify`]. None of them decides anything:
//! whom to tell, when, and whether to try again comes from elsewhere.

mod alertmanager;
mod chat;
mod command;
mod email;
mod http;
pub mod payload;
mod scripted;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod topic;
mod webhook;

pub use alertmanager::Feed;
pub use chat::{Chat, ChatNotifier};
pub use command::CommandNotifier;
pub use email::{Email, EmailNotifier, IMPLICIT_TLS, Mailbox, addresses};
pub use scripted::ScriptedNotifier;
pub use terminal::TerminalNotifier;
pub use text::{Template, sample};
pub use topic::TopicNotifier;
pub use webhook::WebhookNotifier;
