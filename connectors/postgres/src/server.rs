//! The server: a thread that listens, a task for each connection, and a clean stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pgwire::tokio::{TlsAcceptor, process_socket};
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::{Semaphore, oneshot};

use crate::answers::Answers;
use crate::handlers::Handlers;

/// Whether a password opens the door.
pub type Admit = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Connections at once; more are closed at once.
const CONNECTIONS: usize = 100;

/// A client that was silent so long is asked by the system whether it is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// A running server; dropping it stops it.
pub struct PostgresServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PostgresServer {
    /// Listens. Without `admit` everybody who can reach the address is let in.
    ///
    /// # Errors
    /// An address that can't be had, or is open to others while everybody is let in; no thread.
    pub fn start(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        admit: Option<Admit>,
        answers: Arc<dyn Answers>,
    ) -> io::Result<PostgresServer> {
        if admit.is_none() && !address.ip().is_loopback() {
            return Err(io::Error::other(format!("{address} is not a loopback address: a token is needed")));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(named)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("postgres".to_string()).spawn(move || {
            let handlers = Arc::new(Handlers::new(answers, admit, tls.is_some()));
            let places = Arc::new(Semaphore::new(CONNECTIONS));
            let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 6);
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = &mut stopped => break,
                    };
                    // What fails is that connection's affair; without descriptors the next ones wait.
                    let Ok((socket, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    // One that is gone without a word does not keep its place.
                    drop(SockRef::from(&socket).set_tcp_keepalive(&keepalive));
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (tls, handlers) = (tls.clone(), handlers.clone());
                    tokio::spawn(async move {
                        drop(process_socket(socket, tls, handlers).await);
                        drop(place);
                    });
                }
            });
            // What is being answered is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(PostgresServer { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; the port that the system chose when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
