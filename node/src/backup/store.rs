//! Where backups are, and what they are called.
//!
//! `CLUSTER_ID/20261129T064500.123Z-0000000000012345.quorate`: whose it is, when it was saved by
//! the clock of the node that saved it, and the last log entry that it covers. Other names are not
//! ours and are left alone. A file appears under its name only once all of it is written.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt};
use quorate_rpc::tls::TlsError;
use quorate_statemachine::InvalidArgument;
use thiserror::Error;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::{DAY_MS, s3};
use crate::config::{BackupSection, no_place};
use crate::snapshot_file::{self, FileError, Header, Stream, Summary};

/// Bytes that are sent together: stores take 10,000 parts of a file, so this is up to 160 GB.
const PART_BYTES: usize = 16 << 20;

const EXTENSION: &str = ".quorate";

/// So that names sort by time.
const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";

/// What is left of a file whose writer ended is removed when it is so old.
const LEFTOVER_MS: u64 = DAY_MS;

/// Why a backup was not made, or not found.
#[derive(Debug, Error)]
pub enum BackupError {
    /// It is no place for backups.
    #[error(transparent)]
    Place(#[from] InvalidArgument),
    /// The directory is not there.
    #[error(
        "{} is no directory: {error}; it is not made, since it may be a disk that is not mounted",
        dir.display()
    )]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The store's authorities cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store does not do what it is asked for.
    #[error("{}", without_body(&.0.to_string()))]
    Store(#[from] object_store::Error),
    /// The file was not written, or not read back as it was.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was read back is another file.
    #[error("{path} was written, and what was read back is another file; look at the store")]
    Other {
        /// The file.
        path: String,
    },
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.into())
    }
}

impl BackupError {
    /// Whether the file itself is bad, and not the way to it.
    fn is_damage(&self) -> bool {
        let of_the_way =
            |error: &FileError| matches!(error, FileError::Io(_) | FileError::Unsound(_));
        match self {
            Self::File(error) => !of_the_way(error),
            Self::Other { .. } => true,
            _ => false,
        }
    }
}

/// What stores answer may hold what they were asked with, also what must not be told. Of an answer
/// the status and the code are kept.
fn without_body(text: &str) -> String {
    const STATUS: &str = "status code: ";
    let code = text.split_once("<Code>").map(|(_, rest)| rest);
    let code = code.and_then(|rest| rest.split_once("</Code>"));
    let code = code.map_or(String::new(), |(code, _)| format!(", {code}"));
    let told = match text.split_once(STATUS) {
        Some((told, rest)) => {
            let status = rest.split(':').next().unwrap_or_default();
            format!("{told}{STATUS}{status}")
        }
        None => text.split('<').next().unwrap_or_default().to_owned(),
    };
    told + &code
}

/// A place for backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, and what names in it begin with.
    S3 {
        /// The bucket.
        bucket: String,
        /// The beginning of names, or a name.
        prefix: String,
    },
}

impl Place {
    /// A directory or `s3://BUCKET/PREFIX`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidArgument> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Directory(text.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let known = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if scheme != "s3" || bucket.is_empty() || !bucket.chars().all(known) {
            let wanted = "a directory, or s3://BUCKET/PREFIX without credentials";
            return Err(no_place(field, wanted, text));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Self::S3 { bucket, prefix })
    }
}

/// A backup of one cluster. The later one is that of the later log entry: clocks go back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Backup {
    /// The last log entry that it covers.
    index: u64,
    /// When it was saved, in Unix milliseconds.
    pub saved_at_ms: u64,
    path: Path,
    /// Its length.
    pub bytes: u64,
}

/// The backups of one cluster.
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    cluster: Path,
    /// Where its files are, if it is a directory.
    dir: Option<PathBuf>,
}

impl Store {
    /// Those of `cluster_id`. A directory must be there.
    pub async fn open(section: &BackupSection, cluster_id: &str) -> Result<Self, BackupError> {
        let (section, cluster_id) = (section.clone(), cluster_id.to_owned());
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&section, &cluster_id));
        opened.await.map_err(std::io::Error::other)?
    }

    fn open_now(section: &BackupSection, cluster_id: &str) -> Result<Self, BackupError> {
        match Place::parse("backup.to", &section.to)? {
            Place::Directory(dir) => {
                if let Err(error) = std::fs::read_dir(&dir) {
                    return Err(BackupError::Directory { dir, error });
                }
                // Payloads are in them: they are for whom a saved snapshot is for.
                let own = dir.join(cluster_id);
                let mut made = std::fs::DirBuilder::new();
                made.recursive(true).mode(0o700).create(own)?;
                let objects = LocalFileSystem::new_with_prefix(&dir)?.with_fsync(true);
                Ok(Self {
                    objects: Arc::new(objects),
                    cluster: Path::from(cluster_id),
                    dir: Some(dir.join(cluster_id)),
                })
            }
            Place::S3 { bucket, prefix } => Ok(Self {
                objects: Arc::new(s3::open(&bucket, &section.endpoint)?),
                cluster: Path::from(prefix).join(cluster_id),
                dir: None,
            }),
        }
    }

    /// All backups, oldest first.
    pub async fn list(&self) -> Result<Vec<Backup>, BackupError> {
        let found = self.objects.list(Some(&self.cluster));
        let found = found.try_filter_map(async |object| Ok(self.backup(object)));
        let mut found: Vec<Backup> = found.try_collect().await?;
        found.sort();
        Ok(found)
    }

    fn backup(&self, object: ObjectMeta) -> Option<Backup> {
        let name = object.location.filename()?;
        let (saved_at_ms, index) = parse(name)?;
        let ours = self.cluster.clone().join(name) == object.location;
        ours.then_some(Backup {
            index,
            saved_at_ms,
            path: object.location,
            bytes: object.size,
        })
    }

    /// Writes all of `file` and reads it back; what is not the same is removed.
    pub async fn save(&self, file: Stream) -> Result<Backup, BackupError> {
        let header = file.header.clone();
        let index = header.covers.last_log_id.map_or(0, |id| id.index);
        let path = self.cluster.clone().join(name(header.saved_at_ms, index));
        let summary = self.write(&path, file).await?;
        let backup = Backup {
            index,
            saved_at_ms: header.saved_at_ms,
            path,
            bytes: summary.file_bytes,
        };
        let path = backup.path.to_string();
        let error = match self.read_back(&backup).await {
            Ok(read) if read == (header, summary) => return Ok(backup),
            Ok(_) => BackupError::Other { path },
            Err(error) => error,
        };
        if error.is_damage()
            && let Err(left) = self.remove(&backup).await
        {
            tracing::warn!(name = backup.name(), error = %left, "a damaged backup was not removed");
        }
        Err(error)
    }

    async fn write(&self, path: &Path, file: Stream) -> Result<Summary, BackupError> {
        let mut upload = self.objects.put_multipart(path).await?;
        let sent = match send(&mut *upload, file).await {
            Ok(summary) => upload.complete().await.map(|_| summary).map_err(Into::into),
            Err(error) => Err(error),
        };
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            let error = BackupError::from(error);
            tracing::warn!(%path, %error, "what was sent of a backup may still be there");
        }
        sent
    }

    /// Whether all of it can be read and fits. One that cannot be reached is an error.
    pub async fn is_whole(&self, backup: &Backup) -> Result<bool, BackupError> {
        match self.read_back(backup).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_damage() => {
                tracing::warn!(name = backup.name(), %error, "a backup is damaged");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn read_back(&self, backup: &Backup) -> Result<(Header, Summary), BackupError> {
        let bytes = content(self.objects.get(&backup.path).await?);
        // Whoever gives this up must not leave a thread that reads on.
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        let input = reader(bytes.take_until(given_up.cancelled_owned()).boxed());
        let read = tokio::task::spawn_blocking(move || snapshot_file::verify(input)).await;
        Ok(read.map_err(std::io::Error::other)??)
    }

    /// Removes a backup; one that is gone is no error.
    pub async fn remove(&self, backup: &Backup) -> Result<(), BackupError> {
        match self.objects.delete(&backup.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what writers that ended have left in a directory. A store has rules for that.
    pub async fn remove_leftovers(&self, newest: &Backup) -> Result<(), BackupError> {
        let Some(dir) = self.dir.clone() else {
            return Ok(());
        };
        let before_ms = newest.saved_at_ms.saturating_sub(LEFTOVER_MS);
        let removed = tokio::task::spawn_blocking(move || {
            for file in std::fs::read_dir(dir)? {
                let file = file?;
                let is_left = file.file_name().to_str().and_then(leftover);
                if is_left.is_some_and(|saved_at_ms| saved_at_ms < before_ms) {
                    match std::fs::remove_file(file.path()) {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                        // Another leader may tidy too.
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            Ok::<_, std::io::Error>(())
        });
        Ok(removed.await.map_err(std::io::Error::other)??)
    }
}

/// Sends all of `file`, in parts of one length but for the last, as some stores want them.
async fn send(upload: &mut dyn MultipartUpload, mut file: Stream) -> Result<Summary, BackupError> {
    let mut waiting = BytesMut::new();
    while let Some(piece) = file.pieces.recv().await {
        waiting.extend_from_slice(&piece);
        while let Some(part) = whole_part(&mut waiting, PART_BYTES) {
            upload.put_part(part.into()).await?;
        }
    }
    let written = file.written.await.map_err(std::io::Error::other)?;
    let summary = written?;
    if !waiting.is_empty() {
        upload.put_part(waiting.freeze().into()).await?;
    }
    Ok(summary)
}

fn whole_part(waiting: &mut BytesMut, bytes: usize) -> Option<Bytes> {
    (waiting.len() >= bytes).then(|| waiting.split_to(bytes).freeze())
}

type Content = BoxStream<'static, std::io::Result<Bytes>>;

fn content(object: GetResult) -> Content {
    let told = |error| std::io::Error::other(BackupError::Store(error));
    object.into_stream().map_err(told).boxed()
}

/// Reads on a thread that may block.
fn reader(content: Content) -> impl Read + Send + 'static {
    SyncIoBridge::new(StreamReader::new(content))
}

/// A snapshot file at `s3://BUCKET/NAME`, of the store that the environment names: its length, and
/// what reads it on a thread that may block.
pub async fn read(bucket: &str, name: &str) -> Result<(u64, Box<dyn Read + Send>), BackupError> {
    let objects = s3::open(bucket, "")?;
    let object = objects.get(&Path::from(name)).await?;
    Ok((object.meta.size, Box::new(reader(content(object)))))
}

impl Backup {
    /// The name, for people.
    pub fn name(&self) -> &str {
        self.path.as_ref()
    }

    #[cfg(test)]
    pub fn saved_at(index: u64, saved_at_ms: u64) -> Self {
        Self {
            index,
            saved_at_ms,
            path: Path::from(name(saved_at_ms, index)),
            bytes: 0,
        }
    }
}

fn name(saved_at_ms: u64, index: u64) -> String {
    let ms = i64::try_from(saved_at_ms).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{}-{index:016}{EXTENSION}", time.strftime(TIME))
}

/// When the file of this name was saved and what it covers, if the name is one of ours.
fn parse(name: &str) -> Option<(u64, u64)> {
    let (time, index) = name.strip_suffix(EXTENSION)?.split_once('-')?;
    let time = DateTime::strptime(TIME, time).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let saved_at_ms = u64::try_from(time.as_millisecond()).ok()?;
    let index = index.parse().ok()?;
    // So that other ways to write the same are not ours.
    (self::name(saved_at_ms, index) == name).then_some((saved_at_ms, index))
}

/// When the file was to be saved of which this is a part.
fn leftover(name: &str) -> Option<u64> {
    let (file, number) = name.split_once('#')?;
    number.parse::<u64>().ok()?;
    parse(file).map(|(saved_at_ms, _)| saved_at_ms)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn all_parts_but_the_last_are_of_one_length() {
        let mut waiting = BytesMut::new();
        let mut parts = Vec::new();
        for piece in [&b"ab"[..], b"cdefghij", b"k"] {
            waiting.extend_from_slice(piece);
            parts.extend(std::iter::from_fn(|| whole_part(&mut waiting, 4)));
        }
        parts.push(waiting.freeze());
        assert_eq!(parts, ["abcd", "efgh", "ijk"].map(Bytes::from));
    }

    #[tokio::test]
    async fn of_what_writers_left_only_the_old_goes_and_the_directory_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let section = BackupSection {
            to: dir.path().to_string_lossy().into_owned(),
            ..BackupSection::default()
        };
        let store = Store::open(&section, "c").await.expect("it is there");
        let own = dir.path().join("c");
        let mode = std::fs::metadata(&own).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let newest = Backup::saved_at(9, 10 * DAY_MS);
        let left = |saved_at_ms| own.join(format!("{}#1", name(saved_at_ms, 1)));
        let (old, new) = (left(8 * DAY_MS), left(10 * DAY_MS - 3_600_000));
        for file in [&old, &new] {
            std::fs::write(file, "a part").expect("written");
        }
        store.remove_leftovers(&newest).await.expect("removed");
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn a_name_says_when_and_what_and_others_are_left_alone() {
        let ours = "20261130T005320.007Z-0000000000000042.quorate";
        assert_eq!(name(1_796_000_000_007, 42), ours);
        assert_eq!(parse(ours), Some((1_796_000_000_007, 42)));
        let part = leftover("20261130T005320.007Z-0000000000000042.quorate#1");
        assert_eq!(part, Some(1_796_000_000_007));
        for other in [
            "thesis.txt",
            "20261130T005320.007Z.quorate",
            "20261130T005320.007Z-x.quorate",
            "20261130T005320.007Z-42.quorate",
            "20261399T003320.007Z-0000000000000042.quorate",
            "20261130T005320.007Z-0000000000000042.quorate.tmp",
        ] {
            assert_eq!((parse(other), leftover(other)), (None, None), "{other}");
        }
    }

    #[test]
    fn a_place_is_a_directory_or_a_bucket_and_tells_no_credentials() {
        let place = |text| Place::parse("backup.to", text);
        assert_eq!(place("/b/c"), Ok(Place::Directory("/b/c".into())));
        let (bucket, prefix) = ("b".to_owned(), "c/d".to_owned());
        assert_eq!(place("s3://b/c/d"), Ok(Place::S3 { bucket, prefix }));
        for bad in ["gs://b", "s3://", "s3:///c", "s3://id:secret@b/c"] {
            let error = place(bad).expect_err(bad).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_a_store_answers_is_told_by_its_code_alone() {
        let body = "<?xml?><Error><Code>SignatureDoesNotMatch</Code>\
                    <CanonicalRequest>x-amz-security-token:secret</CanonicalRequest></Error>";
        let told = "PUT http://h/b failed: status code: 403 Forbidden";
        let text = without_body(&format!("{told}: {body}"));
        assert_eq!(text, format!("{told}, SignatureDoesNotMatch"));
        assert_eq!(without_body(&format!("{told}: token=secret")), told);
        assert_eq!(
            without_body(&format!("it said: {body}")),
            "it said: , SignatureDoesNotMatch"
        );
        assert_eq!(without_body("cannot connect"), "cannot connect");
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("unmounted");
        let section = BackupSection {
            to: missing.to_string_lossy().into_owned(),
            ..BackupSection::default()
        };
        let refused = Store::open(&section, "c").await.map(drop);
        let error = refused.expect_err("it is not there").to_string();
        assert!(
            error.contains("not mounted") && !missing.exists(),
            "{error}"
        );
    }
}
