//! E-mail over SMTP. All notices of a group are one thread: each refers to the same id.

use std::error::Error;
use std::io;
use std::time::Duration;

use lettre::address::AddressError;
pub use lettre::message::Mailbox;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Message, SmtpTransport, Transport};
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::NOTIFY_TIMEOUT;
use tidewatch_model::ports::{Delivery, Notify};
use tidewatch_model::{Notice, Span};

use crate::text::{Template, text_of, title};

/// The port on which a connection begins with TLS (RFC 8314).
pub const IMPLICIT_TLS: u16 = 465;

/// Where e-mail goes, and how it looks; Alertmanager's `email_config`.
#[derive(Clone)]
pub struct Email {
    /// Receivers.
    pub to: Vec<Mailbox>,
    /// The sender.
    pub from: Mailbox,
    /// The server.
    pub host: String,
    /// Its port; on 465 the connection begins with TLS, on others STARTTLS comes first.
    pub port: u16,
    /// How we call ourselves.
    pub hello: Option<String>,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Whether nothing is sent without TLS.
    pub require_tls: bool,
    /// The name in the server's certificate, where it is not `host`.
    pub server_name: Option<String>,
    /// Certificates of authorities that are trusted besides the usual ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
    /// The subject.
    pub subject: Template,
    /// The text.
    pub text: Template,
    /// The text in HTML; none by default.
    pub html: Option<Template>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// Reads addresses as they stand in the head of a mail: `Name <a@example.com>, b@example.com`.
///
/// # Errors
/// Which is none.
pub fn addresses(text: &str) -> Result<Vec<Mailbox>, String> {
    let one = |part: &str| {
        part.trim()
            .parse::<Mailbox>()
            .map_err(|error: AddressError| format!("'{}' is no address: {error}", part.trim()))
    };
    text.split(',').map(one).collect()
}

/// Sends notices by e-mail.
pub struct EmailNotifier {
    target: String,
    email: Email,
    external_url: String,
    transport: SmtpTransport,
}

impl EmailNotifier {
    /// Under the target's name.
    ///
    /// # Errors
    /// Certificates that are none.
    pub fn new(target: &str, email: Email, external_url: &str, timeout: Option<Span>) -> Result<Self, String> {
        let wrong = |error: lettre::transport::smtp::Error| format!("TLS: {error}");
        let mut parameters = TlsParameters::builder(email.server_name.clone().unwrap_or_else(|| email.host.clone()))
            .dangerous_accept_invalid_certs(email.insecure_skip_verify);
        for certificate in email.ca.iter().flat_map(|ca| certificates(ca)) {
            parameters = parameters.add_root_certificate(Certificate::from_pem(certificate.as_bytes()).map_err(wrong)?);
        }
        let tls = match (email.port, email.require_tls) {
            (IMPLICIT_TLS, _) => Tls::Wrapper(parameters.build().map_err(wrong)?),
            (_, true) => Tls::Required(parameters.build().map_err(wrong)?),
            (_, false) => Tls::None,
        };
        let timeout = timeout.unwrap_or(NOTIFY_TIMEOUT);
        let mut builder = SmtpTransport::builder_dangerous(&email.host)
            .port(email.port)
            .tls(tls)
            .timeout(Some(Duration::from_micros(timeout.0.max(0) as u64)));
        if let Some(hello) = &email.hello {
            builder = builder.hello_name(ClientId::Domain(hello.clone()));
        }
        if let Some((user, password)) = &email.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        let (target, external_url) = (target.to_string(), external_url.to_string());
        Ok(EmailNotifier { target, email, external_url, transport: builder.build() })
    }

    fn message(&self, notice: &Notice) -> Result<Message, String> {
        let email = &self.email;
        // The parts of an id are bound to dots, letters and digits; ours are hexadecimal.
        let domain = email.from.email.domain();
        let thread = format!("<{}@{domain}>", hex(&Sha256::digest(&notice.group_key)[..16]));
        let subject = email.subject.render(notice, &self.external_url, title).replace(['\r', '\n'], " ");
        let mut builder = Message::builder()
            .from(email.from.clone())
            .subject(subject)
            .message_id(Some(format!("<{}.tidewatch@{domain}>", notice.notice_id)))
            .references(thread.clone())
            .in_reply_to(thread);
        for to in &email.to {
            builder = builder.to(to.clone());
        }
        // RFC 3834: nobody's holiday answers us.
        let more = [("Auto-Submitted".to_string(), "auto-generated".to_string())];
        for (name, value) in email.headers.iter().chain(&more) {
            let name = HeaderName::new_from_ascii(name.clone()).map_err(|_| format!("'{name}' is no header"))?;
            builder = builder.raw_header(HeaderValue::new(name, value.replace(['\r', '\n'], " ")));
        }
        let text = email.text.render(notice, &self.external_url, text_of);
        let built = match &email.html {
            None => builder.singlepart(SinglePart::plain(text)),
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(
                text,
                html.render_whole(notice, &self.external_url, text_of),
            )),
        };
        built.map_err(|error| error.to_string())
    }
}

/// Whether nobody was reached at all.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let refused = error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::Other)
    });
    refused || error.source().is_some_and(is_refused)
}

/// The certificates of a file, each for itself.
fn certificates(pem: &[u8]) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem).into_owned();
    text.split_inclusive(END).filter(|part| part.contains(END)).map(str::to_string).collect()
}

impl Notify for EmailNotifier {
    fn target(&self) -> &str {
        &self.target
    }

    fn notify(&self, notice: &Notice) -> Delivery {
        let who = &self.target;
        let message = match self.message(notice) {
            Ok(message) => message,
            Err(problem) => return Delivery::GiveUp { error: format!("{who}: {problem}") },
        };
        match self.transport.send(&message) {
            Ok(_) => Delivery::Delivered,
            // RFC 5321, 4.2.1: 5yz is for good, 4yz may pass.
            Err(error) if error.is_permanent() || error.is_client() => {
                Delivery::GiveUp { error: format!("{who}: {error}") }
            }
            Err(error) => {
                let perhaps = !error.is_transient() && !error.is_tls() && !is_refused(&error);
                Delivery::Retry { after: None, error: format!("{who}: {error}"), perhaps }
            }
        }
    }

    fn preview(&self, notice: &Notice) -> String {
        match self.message(notice) {
            Ok(message) => String::from_utf8_lossy(&message.formatted()).replace("\r\n", "\n"),
            Err(problem) => problem,
        }
    }
}

#[cfg(test)]
#[path = "email_tests.rs"]
mod tests;
