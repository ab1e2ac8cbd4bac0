//! A bucket as a store: S3, or what speaks its language and honours `If-None-Match: *` on a put.

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use tidewatch_model::ports::{Created, Store, StoreError};
use tokio::runtime::Runtime;

/// One request may take so long: a hot file over a bad line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Whoever waits for a put has rows in memory and asks again at the next flush; a few quick retries are for hiccups.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(10);

/// A store below a prefix of a bucket.
pub struct S3Store {
    bucket: Arc<dyn ObjectStore>,
    prefix: String,
    runtime: Runtime,
}

impl S3Store {
    /// Opens `s3://BUCKET[/PREFIX]`; the region, the endpoint and the credentials come from the variables that all tools know:
    /// `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, those of a
    /// web identity; or from the machine's metadata service. A bucket that can't be reached is found at the first call.
    ///
    /// # Errors
    /// Not such a URL, settings that contradict each other, or no runtime.
    pub fn open(url: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<S3Store, StoreError> {
        let failed = |problem: String| StoreError::Io { path: url.to_string(), source: std::io::Error::other(problem) };
        let Some(place) = url.strip_prefix("s3://").filter(|place| !place.starts_with('/') && !place.is_empty()) else {
            return Err(failed("expected s3://BUCKET or s3://BUCKET/PREFIX".to_string()));
        };
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        let (mut builder, mut is_plain) = (AmazonS3Builder::new(), false);
        for (variable, value) in variables.into_iter().filter(|(variable, _)| variable.starts_with("AWS_")) {
            is_plain |= variable.starts_with("AWS_ENDPOINT") && value.starts_with("http://");
            if let Ok(key) = variable.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let bucket = builder
            .with_bucket_name(name)
            .with_retry(retry)
            .with_client_options(ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_allow_http(is_plain))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("s3")
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(S3Store { bucket: Arc::new(bucket), prefix: prefix.trim_matches('/').to_string(), runtime })
    }

    fn full(&self, path: &str) -> Result<Path, StoreError> {
        let bad = |_| StoreError::BadPath(path.to_string());
        let parsed = Path::parse(path.trim_end_matches('/')).map_err(bad)?;
        if parsed.as_ref().is_empty() || parsed.parts().any(|part| part.as_ref() == "..") {
            return Err(StoreError::BadPath(path.to_string()));
        }
        if self.prefix.is_empty() { Ok(parsed) } else { Path::parse(format!("{}/{parsed}", self.prefix)).map_err(bad) }
    }

    /// Waits for an answer, also on a thread of another runtime, where waiting on ours would panic.
    fn wait<T: Send + 'static>(
        &self,
        path: &str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = sync_channel(1);
        self.runtime.spawn(async move { drop(sender.send(work.await)) });
        let failed = |source: std::io::Error| StoreError::Io { path: path.to_string(), source };
        let answer = answer.recv().map_err(|_| failed(std::io::Error::other("the request was given up")))?;
        answer.map_err(|error| match error {
            Error::NotFound { .. } => StoreError::NotFound(path.to_string()),
            error => failed(std::io::Error::other(error)),
        })
    }
}

impl Store for S3Store {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Created, StoreError> {
        let (bucket, full) = (self.bucket.clone(), self.full(path)?);
        let payload = PutPayload::from(bytes.to_vec());
        self.wait(path, async move {
            let options = PutOptions::from(PutMode::Create);
            match bucket.put_opts(&full, payload, options).await {
                Ok(_) => Ok(Created::Now),
                // Two puts at once are answered like this too, of which perhaps neither was carried out.
                Err(error @ Error::AlreadyExists { .. }) => match bucket.head(&full).await {
                    Ok(_) => Ok(Created::Exists),
                    Err(Error::NotFound { .. }) => Err(Error::Generic { store: "S3", source: Box::new(error) }),
                    Err(other) => Err(other),
                },
                Err(error) => Err(error),
            }
        })
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        let (bucket, full) = (self.bucket.clone(), self.full(path)?);
        self.wait(path, async move { Ok(bucket.get(&full).await?.bytes().await?.to_vec()) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let (bucket, full) = (self.bucket.clone(), self.full(prefix)?);
        let found = self.wait(prefix, async move { bucket.list(Some(&full)).try_collect::<Vec<_>>().await })?;
        let own = |path: &Path| match self.prefix.is_empty() {
            true => Some(path.to_string()),
            false => path.as_ref().strip_prefix(&self.prefix).map(|path| path.trim_start_matches('/').to_string()),
        };
        let mut listed: Vec<(String, u64)> =
            found.into_iter().filter_map(|object| Some((own(&object.location)?, object.size))).collect();
        listed.sort();
        Ok(listed)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        let (bucket, full) = (self.bucket.clone(), self.full(path)?);
        let deleted = self.wait(path, async move { bucket.delete(&full).await });
        if matches!(deleted, Err(StoreError::NotFound(_))) { Ok(()) } else { deleted }
    }

    fn local_path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let (bucket, full, ranges) = (self.bucket.clone(), self.full(path)?, ranges.to_vec());
        let lengths: Vec<u64> = ranges.iter().map(|range| range.end.saturating_sub(range.start)).collect();
        let parts = self.wait(path, async move { bucket.get_ranges(&full, &ranges).await })?;
        // A range beyond the end is answered with what there is.
        if parts.iter().map(|part| part.len() as u64).ne(lengths) {
            let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "shorter than what is asked for");
            return Err(StoreError::Io { path: path.to_string(), source });
        }
        Ok(parts.into_iter().map(Vec::from).collect())
    }
}
