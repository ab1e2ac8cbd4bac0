//! PostgreSQL's wire protocol over workers, and the process of its own that `up` keeps for it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::ipc::reader::StreamDecoder;
use tidewatch_postgres::{Answers, Shape, Statement, Unanswered};

use crate::config::{self, Config};
use crate::sql_worker::{Form, Frame, Question};
use crate::sql_workers::{Refusal, SqlWorkers};

/// Statements answered by workers.
pub struct AskedByWire(pub SqlWorkers);

impl Answers for AskedByWire {
    fn parse(&self, sql: &str) -> Result<Vec<Statement>, Unanswered> {
        let question = Question { sql: sql.to_string(), parameters: vec![], form: Form::Statements };
        let mut text = Vec::new();
        let asked = self.0.ask(&question, |frame| {
            if let Some(Frame::Bytes(bytes)) = frame {
                text.extend(bytes);
            }
            Ok(())
        });
        asked.map_err(unanswered)?;
        let parsed: Result<Vec<Statement>, (String, String)> =
            serde_json::from_slice(&text).map_err(|error| Unanswered::Failed(error.to_string()))?;
        parsed.map_err(|(code, problem)| Unanswered::Refused(code, problem))
    }

    fn describe(&self, sql: &str) -> Result<Shape, Unanswered> {
        let question = Question { sql: sql.to_string(), parameters: vec![], form: Form::Description };
        let (mut parameters, mut decoder) = (vec![], StreamDecoder::new());
        let asked = self.0.ask(&question, |frame| match frame {
            None => Ok(()),
            Some(Frame::Parameters(types)) => {
                let types: Vec<String> = serde_json::from_slice(&types).map_err(|error| error.to_string())?;
                let read = types.iter().map(|name| name.parse().map_err(|_| format!("'{name}' is no type")));
                parameters = read.collect::<Result<Vec<DataType>, String>>()?;
                Ok(())
            }
            Some(Frame::Bytes(bytes)) => decode(&mut decoder, bytes, |_| Ok(())),
            Some(other) => Err(format!("{other:?}")),
        });
        asked.map_err(unanswered)?;
        let columns = decoder.schema().ok_or_else(|| Unanswered::Failed("an answer without columns".to_string()))?;
        Ok(Shape { columns, parameters })
    }

    fn answer(
        &self,
        sql: &str,
        parameters: &[Option<String>],
        take: &mut dyn FnMut(Option<RecordBatch>) -> Result<(), String>,
    ) -> Result<(), Unanswered> {
        let question = Question { sql: sql.to_string(), parameters: parameters.to_vec(), form: Form::Arrow };
        let (mut decoder, mut is_begun) = (StreamDecoder::new(), false);
        let asked = self.0.ask(&question, |frame| {
            let Some(Frame::Bytes(bytes)) = frame else { return take(None) };
            decode(&mut decoder, bytes, |batch| {
                is_begun = true;
                take(Some(batch))
            })
        });
        asked.map_err(unanswered)?;
        match decoder.schema() {
            Some(schema) if !is_begun => take(Some(RecordBatch::new_empty(schema))).map_err(Unanswered::Ended),
            _ => Ok(()),
        }
    }
}

fn decode(
    decoder: &mut StreamDecoder,
    bytes: Vec<u8>,
    mut take: impl FnMut(RecordBatch) -> Result<(), String>,
) -> Result<(), String> {
    let mut buffer = Buffer::from_vec(bytes);
    while !buffer.is_empty() {
        if let Some(batch) = decoder.decode(&mut buffer).map_err(|error| error.to_string())? {
            take(batch)?;
        }
    }
    Ok(())
}

fn unanswered(refusal: Refusal) -> Unanswered {
    let text = refusal.to_string();
    match refusal {
        Refusal::Wrong(state, _) | Refusal::Failed(state, _) => Unanswered::Refused(state, text),
        Refusal::Busy(_) => Unanswered::Busy(text),
        Refusal::Late(_) | Refusal::Unwanted(_) | Refusal::Stopped => Unanswered::Ended(text),
    }
}

/// The process `tidewatch serve-sql` of an `up`: started again when it ends, ended with it.
pub struct SqlServer {
    stop: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
    thread: Option<JoinHandle<()>>,
}

/// How soon it is started again, and the longest wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it still runs.
const LOOK: Duration = Duration::from_millis(200);

impl SqlServer {
    /// Starts it. `say` is told why it ended.
    ///
    /// # Errors
    /// A port that can't be had, no thread, or this program's file can't be found.
    pub fn start(
        config: &Config,
        listen: SocketAddr,
        mut say: impl FnMut(&str) + Send + 'static,
    ) -> std::io::Result<SqlServer> {
        // A port that is taken now is a wrong setting; one that is taken later is waited for.
        let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("sql.listen: {listen}: {error}"));
        drop(TcpListener::bind(listen).map_err(named)?);
        let program = std::env::current_exe()?;
        let environment = config::environment_of(config, &["sql.", "http.", "lake.url", "rules.", "tables."]);
        let data = config.data_dir.clone();
        let begin = move || {
            let mut command = Command::new(&program);
            command.args(["--config", "/dev/null", "--data"]).arg(&data);
            command.args(["serve-sql", "--until-input-ends", "--listen", &listen.to_string()]);
            let kept = std::env::vars_os().filter(|(name, _)| {
                let name = name.to_string_lossy();
                name == "TMPDIR" || SqlWorkers::may_have(&name)
            });
            command.env_clear().envs(kept).envs(environment.iter().cloned());
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn()
        };
        let (stop, child) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (stopped, held) = (stop.clone(), child.clone());
        let watch = move || {
            let mut wait = FIRST_WAIT;
            while !stopped.load(Ordering::SeqCst) {
                let why = match begin() {
                    Ok(mut begun) => {
                        let said = begun.stderr.take().map(last_words);
                        *locked(&held) = Some(begun);
                        let since = Instant::now();
                        let status = ended(&held, &stopped);
                        if stopped.load(Ordering::SeqCst) {
                            return;
                        }
                        if since.elapsed() > LONGEST_WAIT {
                            wait = FIRST_WAIT;
                        }
                        let words = said.and_then(|said| said.join().ok()).unwrap_or_default();
                        format!("{status} {}", words.trim())
                    }
                    Err(error) => error.to_string(),
                };
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                say(&format!("serve-sql ended: {why}"));
                std::thread::park_timeout(wait);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        };
        let thread = std::thread::Builder::new().name("serve-sql".to_string()).spawn(watch)?;
        Ok(SqlServer { stop, child, thread: Some(thread) })
    }
}

/// Reads what a process says, so that it never waits for that, and keeps the end of it.
fn last_words(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 4_096]);
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..read]);
            let excess = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..excess);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// Bytes of what a process said last.
const LAST_WORDS: usize = 1_024;

/// Waits until it has ended, and says how.
fn ended(child: &Mutex<Option<Child>>, stopped: &AtomicBool) -> String {
    loop {
        if let Some(running) = locked(child).as_mut() {
            match running.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
        if stopped.load(Ordering::SeqCst) {
            return String::new();
        }
        std::thread::park_timeout(LOOK);
    }
}

fn locked(child: &Mutex<Option<Child>>) -> std::sync::MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
        if let Some(mut child) = locked(&self.child).take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
