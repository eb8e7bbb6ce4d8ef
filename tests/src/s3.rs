//! A small store that speaks as much of S3 as backups need: uploads in parts, listings in pages,
//! reading, removing. It can refuse, and it can damage what it takes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Who may do something.
pub const KEY_ID: &str = "AKIDEXAMPLE";

/// What nobody may tell.
pub const SECRET: &str = "wJalrXUtnFEMIK7MDENG";

/// Objects on one page of a listing: few, so that there are pages.
const PAGE: usize = 2;

/// The store. Dropping it ends it.
pub struct S3 {
    url: String,
    shared: Shared,
    served: JoinHandle<()>,
}

type Shared = Arc<Mutex<Contents>>;

#[derive(Default)]
struct Contents {
    /// By `bucket/key`.
    objects: BTreeMap<String, Bytes>,
    /// Parts that were not put together yet, by upload and number.
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    uploads_begun: u64,
    damage: bool,
    refuse: bool,
    refused: u64,
}

impl S3 {
    /// Starts on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Shared::default();
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let served = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            shared,
            served,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is there, by `bucket/key`.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        lock(&self.shared).objects.clone()
    }

    /// Puts something there that is nobody's backup.
    pub fn put(&self, path: &str, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        lock(&self.shared).objects.insert(path.to_owned(), bytes);
    }

    /// Uploads that were neither completed nor given up.
    #[must_use]
    pub fn uploads(&self) -> usize {
        lock(&self.shared).uploads.len()
    }

    /// From here on everything is refused, or no longer. The answer holds what it was asked with,
    /// as those of some stores do.
    pub fn refuse(&self, refuse: bool) {
        lock(&self.shared).refuse = refuse;
    }

    /// How often it has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        lock(&self.shared).refused
    }

    /// From here on a bit of all that is uploaded is another, or no longer.
    pub fn damage(&self, damage: bool) {
        lock(&self.shared).damage = damage;
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.served.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Contents> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut contents = lock(&shared);
    let signed = headers.get(header::AUTHORIZATION);
    let signed = signed
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let expected = format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/");
    if contents.refuse || !signed.starts_with(&expected) {
        contents.refused += 1;
        let text =
            format!("<Error><Code>AccessDenied</Code><Asked>{signed} {SECRET}</Asked></Error>");
        return reply(StatusCode::FORBIDDEN, text.into());
    }
    let path = uri.path().trim_matches('/').to_owned();
    let query = Query::of(&uri);
    match (&method, query.get("uploadId"), query.get("list-type")) {
        (&Method::POST, None, _) if query.get("uploads").is_some() => contents.begin(&path),
        (&Method::PUT, Some(upload), _) => contents.part(&query, upload, body),
        (&Method::POST, Some(upload), _) => contents.complete(&path, upload),
        (&Method::DELETE, Some(upload), _) => {
            contents.uploads.remove(upload);
            reply(StatusCode::NO_CONTENT, Body::empty())
        }
        (&Method::GET, _, Some(_)) => contents.list(&path, &query),
        (&Method::GET, ..) => contents.get(&path),
        (&Method::DELETE, ..) => {
            contents.objects.remove(&path);
            reply(StatusCode::NO_CONTENT, Body::empty())
        }
        _ => reply(StatusCode::NOT_IMPLEMENTED, Body::empty()),
    }
}

fn reply(status: StatusCode, body: Body) -> Response<Body> {
    let reply = Response::builder()
        .status(status)
        .header(header::ETAG, "\"e\"")
        .header(header::LAST_MODIFIED, "Sun, 29 Nov 2026 06:45:00 GMT");
    reply.body(body).expect("the headers are valid")
}

impl Contents {
    fn begin(&mut self, path: &str) -> Response<Body> {
        self.uploads_begun += 1;
        let upload = format!("{path}-{}", self.uploads_begun);
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        self.uploads.insert(upload, BTreeMap::new());
        reply(StatusCode::OK, text.into())
    }

    fn part(&mut self, query: &Query, upload: &str, body: Bytes) -> Response<Body> {
        let number = query
            .get("partNumber")
            .and_then(|number| number.parse().ok());
        match (self.uploads.get_mut(upload), number) {
            (Some(parts), Some(number)) => {
                parts.insert(number, body);
                reply(StatusCode::OK, Body::empty())
            }
            _ => reply(StatusCode::NOT_FOUND, Body::empty()),
        }
    }

    fn complete(&mut self, path: &str, upload: &str) -> Response<Body> {
        let Some(parts) = self.uploads.remove(upload) else {
            return reply(StatusCode::NOT_FOUND, Body::empty());
        };
        let mut bytes: Vec<u8> = parts.into_values().flatten().collect();
        if self.damage {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
        self.objects.insert(path.to_owned(), bytes.into());
        let text = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag>\
                    </CompleteMultipartUploadResult>";
        reply(StatusCode::OK, text.into())
    }

    fn list(&self, bucket: &str, query: &Query) -> Response<Body> {
        let prefix = format!("{bucket}/{}", query.get("prefix").unwrap_or_default());
        let after = query.get("continuation-token").unwrap_or_default();
        let found = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix));
        let mut found = found.filter(|(path, _)| path.as_str() > after).peekable();
        let mut text = "<ListBucketResult>".to_owned();
        let mut last = None;
        for (path, bytes) in found.by_ref().take(PAGE) {
            last = Some(path);
            let (key, size) = (&path[bucket.len() + 1..], bytes.len());
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"e\"</ETag>\
                 <LastModified>2026-11-29T06:45:00.000Z</LastModified></Contents>"
            );
        }
        if let (Some(_), Some(last)) = (found.peek(), last) {
            let _ = write!(
                text,
                "<NextContinuationToken>{last}</NextContinuationToken>"
            );
        }
        text.push_str("</ListBucketResult>");
        reply(StatusCode::OK, text.into())
    }

    fn get(&self, path: &str) -> Response<Body> {
        match self.objects.get(path) {
            Some(bytes) => reply(StatusCode::OK, bytes.clone().into()),
            None => reply(StatusCode::NOT_FOUND, Body::empty()),
        }
    }
}

struct Query(BTreeMap<String, String>);

impl Query {
    fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // All that a key of a backup has escaped.
        let plain = |text: &str| text.replace("%2F", "/").replace("%3D", "=");
        Self(
            pairs
                .map(|(name, value)| (plain(name), plain(value)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
