//! The server: routes, a thread with its own small runtime, and a clean stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::sync::oneshot;

use crate::access::{Access, authorise};
use crate::api::{self, API_ROUTES, Answer, ApiRequest};
use crate::metrics::{Metric, exposition};
use crate::tls::{Tls, TlsListener};

/// What the server shows.
pub trait Status: Send + Sync + 'static {
    /// `Ok` when rows flow; otherwise what is wrong, in a line.
    fn health(&self) -> Result<(), String>;
    /// The self-metrics.
    fn metrics(&self) -> Vec<Metric>;
    /// What the API answers.
    fn api(&self, request: &ApiRequest) -> Answer;
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be had: in use, or not ours.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The address is open to others and there is no token.
    #[error("{0} is not a loopback address: a token is needed")]
    Open(SocketAddr),
    /// No runtime could be made.
    #[error("can't start the HTTP thread: {0}")]
    Start(std::io::Error),
}

/// Every route, for tests that enumerate them.
pub const ROUTES: [&str; 2] = ["/healthz", "/metrics"];

/// A running server; dropping it stops it.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens and serves on a thread of its own.
    ///
    /// # Errors
    /// An address that can't be had, or that is open to others without a token.
    pub fn start(address: SocketAddr, access: Access, status: Arc<dyn Status>) -> Result<Server, ServeError> {
        Server::start_with(address, access, None, status)
    }

    /// The same over TLS, with a certificate.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(
        address: SocketAddr,
        access: Access,
        tls: Option<Tls>,
        status: Arc<dyn Status>,
    ) -> Result<Server, ServeError> {
        if matches!(access, Access::Open) && !address.ip().is_loopback() {
            return Err(ServeError::Open(address));
        }
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("http".to_string()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let ended = async { drop(stopped.await) };
                let router = router(access, status);
                match tls {
                    None => drop(axum::serve(listener, router).with_graceful_shutdown(ended).await),
                    Some(tls) => {
                        let Ok(listener) = TlsListener::start(listener, tls) else { return };
                        drop(axum::serve(listener, router).with_graceful_shutdown(ended).await);
                    }
                }
            });
        });
        Ok(Server { address: bound, stop: Some(stop), thread: Some(thread.map_err(ServeError::Start)?) })
    }

    /// Where it listens; the port that the system chose when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn router(access: Access, status: Arc<dyn Status>) -> Router {
    let api = |router: Router<Arc<dyn Status>>, path: &&str| router.route(&path.replace("{}", "{id}"), any(api::serve));
    let router = Router::new().route("/healthz", get(health)).route("/metrics", get(metrics));
    API_ROUTES
        .iter()
        .fold(router, api)
        .fallback(|| async { (StatusCode::NOT_FOUND, "no such page\n") })
        .with_state(status)
        // The layer wraps the fallback too: without a token nobody learns which routes exist.
        .layer(from_fn_with_state(access, authorise))
}

async fn health(State(status): State<Arc<dyn Status>>) -> Response {
    match status.health() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(status): State<Arc<dyn Status>>) -> Response {
    let text = exposition(&status.metrics());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::MetricKind;

    struct Scripted(Result<(), String>);

    impl Status for Scripted {
        fn health(&self) -> Result<(), String> {
            self.0.clone()
        }

        fn metrics(&self) -> Vec<Metric> {
            vec![Metric::single("tidewatch_up", "always one", MetricKind::Gauge, 1.0)]
        }

        fn api(&self, request: &ApiRequest) -> Answer {
            Answer::ok(format!("{:?} {} {:?}", request.method, request.path, request.query))
        }
    }

    fn get(server: &Server, path: &str, token: Option<&str>) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = agent.get(format!("http://{}{path}", server.address()));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    fn start(access: Access, health: Result<(), String>) -> Server {
        Server::start("127.0.0.1:0".parse().unwrap(), access, Arc::new(Scripted(health))).unwrap()
    }

    #[test]
    fn every_route_asks_for_the_token() {
        let server = start(Access::token("secret"), Ok(()));
        let api = API_ROUTES.map(|path| path.replace("{}", "x"));
        let known = || ROUTES.iter().copied().chain(api.iter().map(String::as_str));
        for path in known().chain(["/", "/nothing", "//metrics", "/%2e/metrics", "/API/v2/status"]) {
            for token in [None, Some(""), Some("Secret"), Some("secret2")] {
                assert_eq!(get(&server, path, token).0, 401, "{path} {token:?}");
            }
        }
        for path in known() {
            assert_eq!(get(&server, path, Some("secret")).0, 200, "{path}");
        }
        assert_eq!(get(&server, "/nothing", Some("secret")).0, 404);
    }

    #[test]
    fn roles_look_or_change() {
        let access =
            Access::tokens("# who may\nann viewer aaa\n\nbob editor bbb\nsue admin sss\njob writer jjj\n").unwrap();
        let server = start(access, Ok(()));
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://{}/api/v2/silences", server.address());
        let expected = [
            ("aaa", 200, 403, 403),
            ("bbb", 200, 200, 200),
            ("sss", 200, 200, 200),
            ("jjj", 403, 403, 200),
            ("ann", 401, 401, 401),
        ];
        for (token, look, change, write) in expected {
            let authorization = format!("Bearer {token}");
            let get = agent.get(&url).header("Authorization", &authorization).call().unwrap();
            let post = |url: &str, kind: &str| {
                let request = agent.post(url).header("Authorization", &authorization).content_type(kind);
                request.send("{}").unwrap().status().as_u16()
            };
            assert_eq!((get.status().as_u16(), post(&url, "application/json")), (look, change), "{token}");
            let rows = format!("http://{}/api/v1/rows/host", server.address());
            assert_eq!(post(&rows, "application/x-ndjson"), write, "{token}");
            assert!(write != 200 || post(&rows, "text/plain") == 415);
        }
        for (text, problem) in [
            ("ann viewer", "line 1: expected NAME ROLE TOKEN"),
            ("ann owner aaa", "line 1: 'owner' is not one of"),
            ("ann viewer aaa\nbob editor aaa", "line 2: 'bob', or its token, is there twice"),
            ("# nobody", "expected at least one line"),
        ] {
            let Err(found) = Access::tokens(text) else { panic!("{text}") };
            assert!(found.starts_with(problem), "{found}");
        }
    }

    #[test]
    fn over_tls_only_those_who_trust_its_certificate_ask() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let tls = Tls::from_files(&folder.join("localhost.pem"), &folder.join("localhost.key")).unwrap();
        let status = Arc::new(Scripted(Ok(())));
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start_with(address, Access::token("secret"), Some(tls), status).unwrap();
        // One that says nothing holds up nobody.
        let _silent = std::net::TcpStream::connect(server.address()).unwrap();
        let url = format!("https://{}/healthz", server.address());
        let ca = std::fs::read(folder.join("ca.pem")).unwrap();
        let asking = crate::Asking { token: Some("secret"), ca: Some(&ca) };
        assert_eq!(crate::ask("GET", &url, asking, None), Ok((200, "ok\n".to_string())));
        assert!(crate::ask("GET", &url, crate::Asking::default(), None).is_err(), "an authority that nobody knows");
        assert!(crate::ask("GET", &url.replace("https", "http"), asking, None).is_err(), "no HTTP without TLS");
        let Err(problem) = Tls::from_files(&folder.join("ca.pem"), &folder.join("localhost.key")) else { panic!() };
        assert!(problem.contains("localhost.key: "), "{problem}");
        let Err(problem) = Tls::from_files(&folder.join("nothing.pem"), &folder.join("localhost.key")) else {
            panic!()
        };
        assert!(problem.contains("nothing.pem: "), "{problem}");
    }

    #[test]
    fn what_changes_something_is_json_and_not_from_another_site() {
        let server = start(Access::Open, Ok(()));
        let url = format!("http://{}/api/v2/silences?filter=a%3D%22b%22&filter=c", server.address());
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let post = |kind: &str, origin: Option<&str>, body: &[u8]| {
            let mut request = agent.post(&url).header("Content-Type", kind);
            if let Some(origin) = origin {
                request = request.header("Origin", origin);
            }
            let mut response = request.send(body).unwrap();
            (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
        };
        let own = format!("http://{}", server.address());
        let good = (200, r#""POST" /api/v2/silences [("filter", "a=\"b\""), ("filter", "c")]"#.to_string());
        assert_eq!(post("application/json", None, b"{}"), good);
        assert_eq!(post("application/json; charset=utf-8", Some(&own), b"{}"), good);
        for (host, status) in [("evil.example:7575", 403), ("localhost:1", 200), ("[::1]:1", 200), ("10.0.0.1", 403)] {
            let request = agent.get(format!("http://{}/metrics", server.address())).header("Host", host);
            assert_eq!(request.call().unwrap().status().as_u16(), status, "{host}");
        }
        assert_eq!(post("text/plain", None, b"{}").0, 415);
        assert_eq!(post("application/json", Some("http://evil.example"), b"{}").0, 403);
        assert_eq!(post("application/json", Some("null"), b"{}").0, 403);
        assert_eq!(post("application/json", None, &vec![b' '; (1 << 20) + 1]).0, 413);
    }

    #[test]
    fn health_and_metrics() {
        let server = start(Access::Open, Ok(()));
        assert_eq!(get(&server, "/healthz", None), (200, "ok\n".to_string()));
        assert!(get(&server, "/metrics", None).1.contains("tidewatch_up 1\n"));
        let sick = start(Access::Open, Err("the lake is full".to_string()));
        assert_eq!(get(&sick, "/healthz", None), (503, "the lake is full\n".to_string()));
    }

    #[test]
    fn addresses_that_cannot_be() {
        let taken = start(Access::Open, Ok(()));
        let again = Server::start(taken.address(), Access::Open, Arc::new(Scripted(Ok(()))));
        assert!(matches!(again, Err(ServeError::Listen { .. })));
        let open = Server::start("0.0.0.0:0".parse().unwrap(), Access::Open, Arc::new(Scripted(Ok(()))));
        assert!(matches!(open, Err(ServeError::Open(_))));
    }
}
