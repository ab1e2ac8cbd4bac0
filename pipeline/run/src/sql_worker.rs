//! A process that answers questions and can be killed, and how it is spoken to: a line of JSON with a question goes in, frames with
//! the answer come out. Whoever asks plans nothing and reads no file; what a question does to the worker, it does to nobody else.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use tidewatch_sql::{History, QueryError};

use crate::output::{BatchPrinter, Format};

/// What a worker is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// One statement.
    pub sql: String,
    /// Values of its `$1`, `$2`, ... as texts.
    #[serde(default)]
    pub parameters: Vec<Option<String>>,
    /// In which form.
    pub form: Form,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A JSON object a line.
    #[default]
    Json,
    /// CSV with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// No rows: what PostgreSQL's statements are, in JSON.
    Statements,
    /// No rows: an Arrow IPC stream with the columns alone, and before it the types of the parameters.
    Description,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of the form that was asked for.
    Bytes(Vec<u8>),
    /// Types of parameters, as Arrow names them, in JSON.
    Parameters(Vec<u8>),
    /// It ends here: all was said.
    End,
    /// It ends here: the question is wrong. SQLSTATE, and why.
    Wrong(String, String),
    /// It ends here: it could not be answered. SQLSTATE, and why.
    Failed(String, String),
}

/// The largest frame that is read.
const FRAME_BYTES: usize = 64 << 20;

impl Frame {
    /// Writes it: a letter, a length of four bytes, and the rest.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let said = |state: &str, text: &str| Cow::Owned(format!("{state} {text}").into_bytes());
        let (kind, bytes): (u8, Cow<'_, [u8]>) = match self {
            Frame::Bytes(bytes) => (b'B', bytes.into()),
            Frame::Parameters(bytes) => (b'P', bytes.into()),
            Frame::End => (b'.', Cow::Borrowed(&[])),
            Frame::Wrong(state, text) => (b'W', said(state, text)),
            Frame::Failed(state, text) => (b'F', said(state, text)),
        };
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.write_all(&[kind])?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Reads one; `None` at the end of the input.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut head = [0; 5];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        input.read_exact(&mut bytes)?;
        let said = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.split_once(' ').map_or_else(Default::default, |(state, text)| (state.to_string(), text.to_string()))
        };
        Ok(Some(match kind {
            b'B' => Frame::Bytes(bytes),
            b'P' => Frame::Parameters(bytes),
            b'.' => Frame::End,
            b'W' => {
                let (state, text) = said(bytes);
                Frame::Wrong(state, text)
            }
            b'F' => {
                let (state, text) = said(bytes);
                Frame::Failed(state, text)
            }
            other => return Err(io::Error::other(format!("a frame of kind {other}"))),
        }))
    }
}

/// Answers one question in frames; the last one says how it ended.
pub fn answer(history: &History, question: &Question, out: &mut impl Write) -> io::Result<()> {
    let last = match respond(history, question, out) {
        Ok(()) => Frame::End,
        Err(QueryError::Question(state, problem)) => Frame::Wrong(state.to_string(), problem),
        Err(error) => Frame::Failed(error.sqlstate().to_string(), error.to_string()),
    };
    last.write(out)
}

fn respond(history: &History, question: &Question, out: &mut impl Write) -> Result<(), QueryError> {
    let failed = |error: &dyn std::fmt::Display| QueryError::failed(error);
    let mut chunks = Chunks { out, held: Vec::new() };
    match question.form {
        Form::Statements => {
            let parsed = tidewatch_postgres::parse(&question.sql);
            chunks
                .write_all(&serde_json::to_vec(&parsed).map_err(|error| failed(&error))?)
                .map_err(|error| failed(&error))?;
        }
        Form::Description => {
            let description = history.describe(&question.sql)?;
            let types: Vec<String> = description.parameters.iter().map(ToString::to_string).collect();
            let types = serde_json::to_vec(&types).map_err(|error| failed(&error))?;
            Frame::Parameters(types).write(chunks.out).map_err(|error| failed(&error))?;
            let mut writer =
                StreamWriter::try_new(&mut chunks, &description.columns).map_err(|error| failed(&error))?;
            writer.finish().map_err(|error| failed(&error))?;
        }
        Form::Arrow => {
            let mut writer: Option<StreamWriter<&mut Chunks<_>>> = None;
            let mut place = Some(&mut chunks);
            history.query_with(&question.sql, &question.parameters, |batch| {
                if let Some(chunks) = place.take() {
                    writer = Some(StreamWriter::try_new(chunks, &batch.schema()).map_err(|error| failed(&error))?);
                }
                let writer = writer.as_mut().ok_or_else(|| failed(&"an answer without a schema"))?;
                if batch.num_rows() > 0 { writer.write(&batch).map_err(|error| failed(&error)) } else { Ok(()) }
            })?;
            writer.map_or(Ok(()), |mut writer| writer.finish()).map_err(|error| failed(&error))?;
        }
        Form::Json | Form::Csv => {
            let is_csv = question.form == Form::Csv;
            let mut printer = BatchPrinter::new(if is_csv { Format::Csv } else { Format::Json }, &mut chunks);
            history.query_with(&question.sql, &question.parameters, |batch: RecordBatch| {
                if batch.num_rows() == 0 && !is_csv {
                    return Ok(());
                }
                printer.print(batch).map_err(|failure| failed(&failure))
            })?;
            printer.finish().map_err(|failure| failed(&failure))?;
        }
    }
    chunks.send().map_err(|error| failed(&error))
}

/// Makes frames of what is written.
struct Chunks<'a, W: Write> {
    out: &'a mut W,
    held: Vec<u8>,
}

/// Bytes of a frame, about.
const CHUNK_BYTES: usize = 256 << 10;

impl<W: Write> Chunks<'_, W> {
    fn send(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        Frame::Bytes(std::mem::take(&mut self.held)).write(self.out)
    }
}

impl<W: Write> Write for Chunks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES / 2);
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
