//! The one authorisation layer: it looks at every request after routing was decided by axum, and denies by default.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::api::{SQL_ROUTE, row_types};

/// What somebody may do; each from `Viewer` on may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Write rows, and nothing else: for jobs.
    Writer,
    /// Look at everything.
    Viewer,
    /// Silence and acknowledge, and write rows.
    Editor,
    /// Change what runs. No route asks for it yet.
    Admin,
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        match text {
            "writer" => Ok(Role::Writer),
            "viewer" => Ok(Role::Viewer),
            "editor" => Ok(Role::Editor),
            "admin" => Ok(Role::Admin),
            other => Err(format!("'{other}' is not one of writer, viewer, editor, admin")),
        }
    }
}

/// Somebody who may ask.
#[derive(Clone)]
pub struct Token {
    /// Empty for the one token that everybody has.
    name: String,
    role: Role,
    digest: [u8; 32],
}

/// Who may ask.
#[derive(Clone)]
pub enum Access {
    /// Anybody: only for a loopback address.
    Open,
    /// Whoever presents one of these bearer tokens.
    Tokens(Vec<Token>),
}

/// Who asked, for those who keep a record of it.
#[derive(Debug, Clone)]
pub(crate) struct Asker(pub String);

impl Token {
    /// Of this secret, which is not kept.
    pub fn new(name: &str, role: Role, secret: &str) -> Token {
        Token { name: name.to_string(), role, digest: Sha256::digest(secret.as_bytes()).into() }
    }
}

impl Access {
    /// Access to everything by this token, which is not kept.
    pub fn token(token: &str) -> Self {
        Access::Tokens(vec![Token::new("", Role::Admin, token)])
    }

    /// Access by the tokens of a file: a line for each, `NAME ROLE TOKEN`; empty lines, and those that begin with `#`, are none.
    ///
    /// # Errors
    /// The line, and what is wrong with it; a token is never shown.
    pub fn tokens(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [name, role, secret] => {
                    let role = role.parse().map_err(|problem| format!("line {number}: {problem}"))?;
                    let token = Token::new(name, role, secret);
                    if tokens.iter().any(|known| known.digest == token.digest || known.name == token.name) {
                        return Err(format!("line {number}: '{name}', or its token, is there twice"));
                    }
                    tokens.push(token);
                }
                _ => return Err(format!("line {number}: expected NAME ROLE TOKEN")),
            }
        }
        if tokens.is_empty() {
            Err("expected at least one line NAME ROLE TOKEN".to_string())
        } else {
            Ok(Access::Tokens(tokens))
        }
    }

    /// Whether a secret is that of somebody who may look.
    pub fn admits(&self, secret: &str) -> bool {
        self.of(Some(&format!("Bearer {secret}"))).is_some_and(|(_, role)| role >= Role::Viewer)
    }

    /// Who presents this `Authorization` header. Digests are compared, so time tells nothing about the token.
    fn of(&self, authorization: Option<&str>) -> Option<(Option<String>, Role)> {
        match self {
            Access::Open => Some((None, Role::Admin)),
            Access::Tokens(tokens) => {
                let secret = authorization?.strip_prefix("Bearer ")?.trim();
                let digest = <[u8; 32]>::from(Sha256::digest(secret.as_bytes()));
                let token = tokens.iter().find(|token| token.digest == digest)?;
                Some((Some(token.name.clone()).filter(|name| !name.is_empty()), token.role))
            }
        }
    }
}

/// Whether a request names this machine by what only this machine can mean.
fn is_this_machine(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The layer itself.
pub(crate) async fn authorise(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    if matches!(access, Access::Open) && !is_this_machine(&request) {
        // Another site's name that leads here: a page of it would be taken for one of ours (DNS rebinding).
        return (StatusCode::FORBIDDEN, "expected the host to be localhost or a loopback address\n").into_response();
    }
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((name, role)) = access.of(header) else {
        let said = if header.is_some() { "the token is not known\n" } else { "a bearer token is needed\n" };
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], said).into_response();
    };
    // Whoever changes something is an editor: so it is for every route that is to come.
    let only_looks = [Method::GET, Method::HEAD].contains(request.method()) || request.uri().path() == SQL_ROUTE;
    let writes_rows = request.method() == Method::POST && row_types(request.uri().path()).is_some();
    let needed = if only_looks { Role::Viewer } else { Role::Editor };
    if role < needed && !(writes_rows && role == Role::Writer) {
        let may = if role == Role::Writer { "write rows" } else { "look" };
        return (StatusCode::FORBIDDEN, format!("the token's role may only {may}\n")).into_response();
    }
    if let Some(name) = name {
        request.extensions_mut().insert(Asker(name));
    }
    next.run(request).await
}
