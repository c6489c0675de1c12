//! Reads objects in S3, Google Cloud Storage and on HTTP servers with the object_store crate.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, RetryConfig,
};
use tokio::runtime::Runtime;
use url::Url;

/// An object in a store.
pub(in crate::data) struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// A strong entity tag. If the object's tag changes later, the store refuses to read it.
    tag: Option<String>,
    version: Option<String>,
}

/// Why a request to a store failed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}. {advice}")]
pub(in crate::data) struct StoreError {
    problem: String,
    advice: &'static str,
}

impl Remote {
    /// Opens an object and requests its size.
    pub(in crate::data) fn open(url: &str) -> io::Result<(Self, u64)> {
        let location = Location::parse(url)?;
        let store = store(&location)?;
        let found = wait(store.head(&location.path))?.map_err(failed)?;
        let version = found
            .e_tag
            .clone()
            .or_else(|| Some(found.last_modified.to_rfc3339()).filter(|_| !is_epoch(&found)));
        // If-Match compares strongly (RFC 9110, 13.1.1): a weak tag would never match.
        let tag = found.e_tag.filter(|tag| !tag.starts_with("W/"));
        Ok((Self { store, path: location.path, tag, version }, found.size))
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(in crate::data) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let range = GetRange::Bounded(offset..offset + buffer.len() as u64);
        let options =
            GetOptions { range: Some(range), if_match: self.tag.clone(), ..GetOptions::default() };
        let bytes = wait(async { self.store.get_opts(&self.path, options).await?.bytes().await })?
            .map_err(failed)?;
        if bytes.len() != buffer.len() {
            let (found, wanted) = (bytes.len(), buffer.len());
            let problem = format!("the store returned {found} bytes, expected {wanted}");
            return Err(error(problem, CHANGED));
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    /// Distinguishes this object from an earlier one of the same name.
    pub(in crate::data) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

/// URLs of the objects directly inside a folder, and of its sub-folders, each sorted.
pub(in crate::data) fn list(url: &str) -> io::Result<(Vec<String>, Vec<String>)> {
    let location = Location::parse(url)?;
    if location.url.scheme().starts_with("http") {
        let advice = "Name the files, as in https://host/set-{000..127}.tar";
        return Err(error("an HTTP server does not list its files".to_owned(), advice));
    }
    let store = store(&location)?;
    let found = wait(store.list_with_delimiter(Some(&location.path)))?.map_err(failed)?;
    let mut files: Vec<_> =
        found.objects.iter().map(|object| location.of(&object.location)).collect();
    let mut folders: Vec<_> = found.common_prefixes.iter().map(|path| location.of(path)).collect();
    files.sort();
    folders.sort();
    Ok((files, folders))
}

const CHANGED: &str = "If it changed since the run began, put it back";

/// A parsed URL.
struct Location {
    url: Url,
    path: Path,
}

impl Location {
    fn parse(text: &str) -> io::Result<Self> {
        let advice = "Write it as s3://BUCKET/KEY, gs://BUCKET/KEY or https://HOST/PATH";
        let url = Url::parse(text).map_err(|problem| error(format!("{problem}"), advice))?;
        if url.host_str().is_none() {
            return Err(error("it names no bucket or host".to_owned(), advice));
        }
        if url.query().is_some() {
            let problem = "it has a query (?...), which is not sent to stores".to_owned();
            return Err(error(problem, advice));
        }
        let path = Path::from_url_path(url.path())
            .map_err(|problem| error(problem.to_string(), advice))?;
        Ok(Self { url, path })
    }

    /// The URL of another path in the same store.
    fn of(&self, path: &Path) -> String {
        let mut url = self.url.clone();
        // `set_path` encodes everything except this.
        url.set_path(&path.as_ref().replace('%', "%25"));
        url.into()
    }

    /// The part of a URL that identifies a store: scheme, and bucket or host.
    fn origin(&self) -> &str {
        &self.url[..url::Position::BeforePath]
    }
}

/// The store of a location. All reads from a store share its connections.
fn store(location: &Location) -> io::Result<Arc<dyn ObjectStore>> {
    static STORES: Mutex<Option<HashMap<String, Arc<dyn ObjectStore>>>> = Mutex::new(None);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    if let Some(store) = stores.get(location.origin()) {
        return Ok(Arc::clone(store));
    }
    let store = build(location).map_err(failed)?;
    stores.insert(location.origin().to_owned(), Arc::clone(&store));
    Ok(store)
}

fn build(location: &Location) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig {
        max_retries: 8,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    let url = location.origin();
    Ok(match location.url.scheme() {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            // An endpoint with http:// was set on purpose.
            let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
            let builder = if plain { builder.with_allow_http(true) } else { builder };
            Arc::new(builder.build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.build()?)
        }
        scheme => {
            let options = ClientOptions::new().with_allow_http(scheme == "http");
            let builder = HttpBuilder::new().with_url(url).with_client_options(options);
            Arc::new(builder.with_retry(retry).build()?)
        }
    })
}

/// Waits for a request. This thread sleeps while the runtime's threads handle the connections.
fn wait<F: Future>(request: F) -> io::Result<F::Output> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = match RUNTIME.get() {
        Some(runtime) => runtime,
        None => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let made = builder.worker_threads(2).thread_name("store").enable_all().build()?;
            RUNTIME.get_or_init(|| made)
        }
    };
    Ok(runtime.block_on(request))
}

/// HTTP servers are not required to state when a file changed. Then the time is 0.
fn is_epoch(found: &object_store::ObjectMeta) -> bool {
    found.last_modified.timestamp() == 0
}

fn error(problem: String, advice: &'static str) -> io::Error {
    io::Error::other(StoreError { problem, advice })
}

// For `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn failed(found: object_store::Error) -> io::Error {
    use object_store::Error as Store;
    let advice = match &found {
        Store::NotFound { .. } => "Check the URL",
        Store::Precondition { .. } => CHANGED,
        Store::Unauthenticated { .. } | Store::PermissionDenied { .. } => {
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS. \
             For a public bucket of S3 set AWS_SKIP_SIGNATURE=true"
        }
        _ => {
            "Check the connection, the URL and, for S3, AWS_REGION and AWS_ENDPOINT. docs/data.md \
              has an example"
        }
    };
    // Each level of the chain repeats the message, so its first line is enough.
    let text = found.to_string();
    let problem = text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
    error(problem, advice)
}
