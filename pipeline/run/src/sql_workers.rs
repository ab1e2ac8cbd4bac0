//! Workers that answer questions from outside: so many at once, each a process of its own that is ended when it takes too long, and
//! replaced when it dies. They get the place of the lake, and what opens it where it is a bucket: no configuration, no other secret.

use std::io::{BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::sql_worker::{Frame, Question};

/// Variables that a worker may have, and the beginning of those that open a bucket.
const ENVIRONMENT: [&str; 10] = [
    "PATH",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const BUCKET: &str = "AWS_";
/// How often whoever asked hears that there is nothing yet.
const BEAT: Duration = Duration::from_millis(200);
/// Questions that wait, for each that is answered; more are told at once that there are too many.
const QUEUE: usize = 4;
/// What folders of workers' temporary files begin with.
const SPILL: &str = "tidewatch-sql-";
/// Frames that wait for whoever asked.
const WAITING: usize = 4;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The question is wrong. SQLSTATE, and why.
    #[error("{1}")]
    Wrong(String, String),
    /// It could not be answered. SQLSTATE, and why.
    #[error("{1}")]
    Failed(String, String),
    /// All workers are at other questions.
    #[error("too many questions at once: all {0} workers are busy")]
    Busy(usize),
    /// It took too long.
    #[error("the answer took longer than {} s", .0.as_secs())]
    Late(Duration),
    /// All end.
    #[error("this process stops")]
    Stopped,
    /// Whoever asked wants no more.
    #[error("{0}")]
    Unwanted(String),
}

/// What questions are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Our own.
    Own,
    /// PostgreSQL's, with its catalog.
    PostgreSql,
}

/// The workers.
pub struct SqlWorkers {
    /// The program and its arguments.
    command: Vec<String>,
    most: usize,
    timeout: Duration,
    state: Mutex<State>,
    freed: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    asked: usize,
    waiting: usize,
    started: u64,
    died: u64,
}

struct Worker {
    child: Child,
    questions: ChildStdin,
    frames: Receiver<std::io::Result<Frame>>,
    /// Of its temporary files, which it can't delete when it is killed.
    folder: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl SqlWorkers {
    /// As the configuration says. None is started before the first question.
    ///
    /// # Errors
    /// This program's own file can't be found.
    pub fn new(config: &Config, dialect: Dialect) -> std::io::Result<SqlWorkers> {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let mut command = vec![program, "sql-worker".to_string()];
        if dialect == Dialect::PostgreSql {
            command.push("--postgres".to_string());
        }
        let mut argument = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        argument("data", config.data_dir.display().to_string());
        argument("memory", config.sql_memory.to_string());
        if let Some(url) = &config.lake_url {
            argument("lake-url", url.clone());
        }
        for file in &config.tables_files {
            argument("table", file.to_string());
        }
        for path in &config.rules_paths {
            argument("rules", path.display().to_string());
        }
        sweep();
        let timeout = config.sql_timeout.to_std();
        Ok(SqlWorkers {
            command,
            most: config.sql_workers,
            timeout,
            state: Mutex::default(),
            freed: Condvar::new(),
            stopped: AtomicBool::new(false),
        })
    }

    /// How many ended while they answered.
    pub fn died(&self) -> u64 {
        self.state().died
    }

    /// Answers nothing any more, and ends what is being answered.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.freed.notify_all();
    }

    /// Whether a worker may have a variable of the environment.
    pub fn may_have(name: &str) -> bool {
        ENVIRONMENT.contains(&name) || name.starts_with(BUCKET)
    }

    /// Asks, and hands over what is answered, piece by piece; nothing now and then while there is none, so that whoever asked may
    /// say that it wants no more.
    ///
    /// # Errors
    /// Why there is no answer, or only a part of one.
    pub fn ask(
        &self,
        question: &Question,
        mut take: impl FnMut(Option<Frame>) -> Result<(), String>,
    ) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.timeout;
        let mut turn = self.turn(deadline)?;
        let kept = turn.idle.take();
        let mut was_idle = kept.is_some();
        let mut worker = kept.map_or_else(|| self.begun(), Ok)?;
        let mut line = serde_json::to_vec(question).map_err(failed)?;
        line.push(b'\n');
        // One that died is found by the first read.
        drop(worker.questions.write_all(&line).and_then(|()| worker.questions.flush()));
        let mut is_silent = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::Late(self.timeout));
            }
            if self.stopped.load(Ordering::SeqCst) {
                return Err(Refusal::Stopped);
            }
            let frame = match worker.frames.recv_timeout(left.min(BEAT)) {
                Ok(Ok(frame)) => frame,
                Err(RecvTimeoutError::Timeout) if left <= BEAT => return Err(Refusal::Late(self.timeout)),
                Err(RecvTimeoutError::Timeout) => {
                    take(None).map_err(Refusal::Unwanted)?;
                    continue;
                }
                // It died while it was idle, of no fault of this question.
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) if is_silent && was_idle => {
                    was_idle = false;
                    worker = self.begun()?;
                    drop(worker.questions.write_all(&line).and_then(|()| worker.questions.flush()));
                    continue;
                }
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                    self.state().died += 1;
                    let how = worker.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(failed(format!("the question ended its worker ({how})")));
                }
            };
            is_silent = false;
            let ended = match frame {
                Frame::End => Ok(()),
                Frame::Wrong(state, problem) => Err(Refusal::Wrong(state, problem)),
                Frame::Failed(state, problem) => Err(Refusal::Failed(state, problem)),
                piece => match take(Some(piece)) {
                    Ok(()) => continue,
                    Err(why) => return Err(Refusal::Unwanted(why)),
                },
            };
            turn.idle = Some(worker);
            return ended;
        }
    }

    /// Waits until one of the workers may be had.
    fn turn(&self, deadline: Instant) -> Result<Turn<'_>, Refusal> {
        let mut state = self.state();
        if state.asked >= self.most && state.waiting >= QUEUE * self.most {
            return Err(Refusal::Busy(self.most));
        }
        state.waiting += 1;
        while state.asked >= self.most {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopped.load(Ordering::SeqCst) {
                state.waiting -= 1;
                return Err(Refusal::Busy(self.most));
            }
            state = self.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        state.asked += 1;
        let idle = state.idle.pop();
        drop(state);
        Ok(Turn { workers: self, idle })
    }

    fn begun(&self) -> Result<Worker, Refusal> {
        self.start().map_err(|error| failed(format!("no worker could be started: {error}")))
    }

    fn start(&self) -> std::io::Result<Worker> {
        let number = {
            let mut state = self.state();
            state.started += 1;
            state.started
        };
        let folder = std::env::temp_dir().join(format!("{SPILL}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (program, arguments) = self.command.split_first().ok_or(std::io::ErrorKind::NotFound)?;
        let known = std::env::vars_os().filter(|(name, _)| SqlWorkers::may_have(&name.to_string_lossy()));
        let mut command = Command::new(program);
        // The allocator would map a gigabyte at once, which counts as if it were used.
        command.args(arguments).env_clear().envs(known).env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        // A Ctrl-C is for whoever asked it; the end of their input ends them too.
        command.env("TMPDIR", &folder).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let questions = child.stdin.take().ok_or_else(missing)?;
        let mut answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let (sender, frames) = sync_channel(WAITING);
        std::thread::Builder::new().name("sql-answers".to_string()).spawn(move || {
            while let Some(frame) = Frame::read(&mut answers).transpose() {
                let is_over = frame.is_err();
                if sender.send(frame).is_err() || is_over {
                    return;
                }
            }
        })?;
        Ok(Worker { child, questions, frames, folder })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(why: impl std::fmt::Display) -> Refusal {
    Refusal::Failed("XX000".to_string(), why.to_string())
}

/// Deletes temporary files of workers whose asker is gone.
fn sweep() {
    let Ok(folders) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let of = name.strip_prefix(SPILL).and_then(|rest| rest.split('-').next());
        if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            drop(std::fs::remove_dir_all(folder.path()));
        }
    }
}

/// The right to one worker, and the worker when it may be used again.
struct Turn<'a> {
    workers: &'a SqlWorkers,
    idle: Option<Worker>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.workers.state();
        state.asked -= 1;
        state.idle.extend(self.idle.take());
        drop(state);
        self.workers.freed.notify_one();
    }
}
