//! An answer as a file that other programs read: Parquet, or an Arrow IPC stream.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// A file under way.
pub enum AnswerFile {
    /// Compressed with zstd.
    Parquet(Box<ArrowWriter<Box<dyn Write + Send>>>),
    /// As it is in memory.
    Arrow(Box<StreamWriter<Box<dyn Write + Send>>>),
}

impl AnswerFile {
    /// Begins it.
    ///
    /// # Errors
    /// What can't be written, in words; as the others.
    pub fn begin(is_parquet: bool, out: Box<dyn Write + Send>, schema: &SchemaRef) -> Result<AnswerFile, String> {
        if !is_parquet {
            let writer = StreamWriter::try_new(out, schema).map_err(|error| error.to_string())?;
            return Ok(AnswerFile::Arrow(Box::new(writer)));
        }
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(|error| error.to_string())?;
        Ok(AnswerFile::Parquet(Box::new(writer)))
    }

    /// Writes rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        match self {
            AnswerFile::Parquet(writer) => writer.write(batch).map_err(|error| error.to_string()),
            AnswerFile::Arrow(writer) => writer.write(batch).map_err(|error| error.to_string()),
        }
    }

    /// Ends it.
    pub fn finish(self) -> Result<(), String> {
        match self {
            AnswerFile::Parquet(writer) => {
                let mut out = writer.into_inner().map_err(|error| error.to_string())?;
                out.flush().map_err(|error| error.to_string())
            }
            AnswerFile::Arrow(writer) => {
                let mut out = writer.into_inner().map_err(|error| error.to_string())?;
                out.flush().map_err(|error| error.to_string())
            }
        }
    }
}
