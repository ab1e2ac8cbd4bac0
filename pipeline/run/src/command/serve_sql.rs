//! `tidewatch serve-sql`: the history for everything that speaks to PostgreSQL.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, setrlimit};
use tidewatch_postgres::{Admit, PostgresServer};
use tidewatch_serve::Access;
use tokio::signal::unix::{SignalKind, signal};

use super::sql_worker::yield_to_others;
use super::telling::{access, tls};
use super::up::say;
use crate::config::Config;
use crate::failure::Failure;
use crate::lake_access::open_store_to_read;
use crate::postgres::AskedByWire;
use crate::sql_workers::{Dialect, SqlWorkers};

/// Where to listen.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewatch serve-sql --data /var/lib/tidewatch\n  psql -h 127.0.0.1 -p 5433 -d tidewatch -c 'SELECT host, max(temperature_celsius) FROM gpu GROUP BY host'\n  psql -h 127.0.0.1 -p 5433 -d tidewatch -c '\\d gpu'\n\nReads only. The password is a token of http.token_file or http.tokens_file where there is one; without, anybody on this\nmachine may ask. Each question is answered by a process of its own: sql.workers, sql.memory and sql.timeout bound them."
)]
pub struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:5433")]
    listen: SocketAddr,
    /// End when standard input does, and say nothing.
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

/// Memory of the server itself: answers on their way, and what is sent to it. Beyond it the process ends, and `up` starts another.
const OWN_BYTES: u64 = 3 << 30;

/// Runs until it is asked to stop.
pub fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    yield_to_others();
    // What strangers send is held here until it is asked of a worker.
    let limit = Some(OWN_BYTES);
    setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }).map_err(Failure::usage)?;
    let admit: Option<Admit> = match access(config)? {
        Access::Open => None,
        tokens => Some(Arc::new(move |password: &str| tokens.admits(password))),
    };
    // A folder that is not there is a slip, not a lake without rows.
    drop(open_store_to_read(config)?);
    let workers = SqlWorkers::new(config, Dialect::PostgreSql).map_err(Failure::no)?;
    let acceptor = tls(config)?.map(|tls| tls.acceptor());
    let server = PostgresServer::start(args.listen, acceptor, admit, Arc::new(AskedByWire(workers)));
    let server = server.map_err(Failure::usage)?;
    if args.until_input_ends {
        std::thread::spawn(|| {
            drop(std::io::stdin().lock().read_to_end(&mut Vec::new()));
            std::process::exit(0);
        });
    } else {
        say(
            false,
            &format!(
                "tidewatch: the history of {} at postgresql://{}/tidewatch",
                config.data_dir.display(),
                server.address()
            ),
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::no)?;
    let stopped = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<(), std::io::Error>(())
    });
    stopped.map_err(Failure::no)
}
