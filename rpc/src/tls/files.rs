//! Certificates and keys from files. A private key that others can read is not taken.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::certificate::Certificate;

/// Larger files are none of ours: a bundle of a hundred authorities has about 200 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why certificates and keys cannot be used. No text has anything of a key in it.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot read {what}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// A file has something else in it.
    #[error("{}: {problem}; give PEM with {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A private key could be read by others.
    #[error(
        "{}: the private key has mode {mode:04o} and belongs to user {owner}; it must be readable \
         by its owner alone (user {user}, or root with the group reading): {advice}",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who this process is.
        user: u32,
        /// What to do.
        advice: String,
    },
    /// A certificate and a key are not of one pair, or TLS can do nothing with them.
    #[error("{} and {}: {problem}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A certificate with those above it, and its private key.
pub struct Identity {
    /// Its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// Where they are from.
    pub files: (PathBuf, PathBuf),
}

impl Identity {
    /// Reads both files.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(cert, "a certificate")?;
        let what = "a private key";
        check_key(key)?;
        let pem = read_file(key, what)?;
        let private = PrivateKeyDer::from_pem_slice(&pem);
        let private = private.map_err(|error| bad(key, what, error.to_string()))?;
        Ok(Self {
            chain,
            key: private,
            files: (cert.to_owned(), key.to_owned()),
        })
    }

    /// What the certificate says.
    pub fn certificate(&self) -> Result<Certificate, TlsError> {
        parsed(&self.files.0, &self.chain[0])
    }

    /// The error of a library about the pair.
    pub fn problem(files: (PathBuf, PathBuf), error: &rustls::Error) -> TlsError {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                "certificate and private key do not belong together".to_owned()
            }
            other => other.to_string(),
        };
        let (cert, key) = files;
        TlsError::Pair { cert, key, problem }
    }
}

/// Reads all certificates in a file; at least one.
pub fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_file(path, what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| bad(path, what, error.to_string()))?;
    if found.is_empty() {
        return Err(bad(path, what, "there is no certificate in it".to_owned()));
    }
    // What cannot be read here would be refused in the middle of a handshake, far from its cause.
    for certificate in &found {
        parsed(path, certificate)?;
    }
    Ok(found)
}

/// Reads the certificates of authorities that are trusted.
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let what = "certificates of authorities";
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, what)? {
        let added = store.add(certificate);
        added.map_err(|error| bad(path, what, error.to_string()))?;
    }
    Ok(Arc::new(store))
}

fn parsed(path: &Path, der: &[u8]) -> Result<Certificate, TlsError> {
    Certificate::parse(der).map_err(|problem| bad(path, "a certificate", problem))
}

/// The bytes of a regular file that is not too large to be one of ours.
pub fn read_file(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    let unreadable = |problem: String| TlsError::Unreadable {
        path: path.to_owned(),
        what,
        problem,
    };
    let mut size = metadata(path, what)?.len();
    let mut bytes = Vec::new();
    if size <= FILE_BYTES_MAX {
        // It may have grown since: one byte above the limit tells.
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(error.to_string()))?;
        size = bytes.len() as u64;
    }
    match size {
        ..=FILE_BYTES_MAX => Ok(bytes),
        _ => Err(unreadable(format!(
            "it has {size} bytes, limit {FILE_BYTES_MAX}"
        ))),
    }
}

fn metadata(path: &Path, what: &'static str) -> Result<Metadata, TlsError> {
    let unreadable = |problem: String| TlsError::Unreadable {
        path: path.to_owned(),
        what,
        problem,
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => Err(unreadable("it is no regular file".to_owned())),
    }
}

/// As PostgreSQL does: the key is ours and nobody else's, or root's and our group may read it (as
/// secrets of systemd and Kubernetes are).
fn check_key(path: &Path) -> Result<(), TlsError> {
    let metadata = metadata(path, "a private key")?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let user = rustix::process::geteuid().as_raw();
    match exposed(mode, owner, user) {
        None => Ok(()),
        Some(command) => Err(TlsError::Exposed {
            path: path.to_owned(),
            mode,
            owner,
            user,
            advice: format!("{command} {}", path.display()),
        }),
    }
}

/// The command that makes it right, if it is not.
fn exposed(mode: u32, owner: u32, user: u32) -> Option<String> {
    let own = owner == user && mode & 0o077 == 0;
    let roots = owner == 0 && mode & 0o037 == 0;
    if own || roots {
        return None;
    }
    Some(match owner {
        _ if owner == user => "chmod 600".to_owned(),
        0 => "chmod 640".to_owned(),
        _ => format!("chown {user}"),
    })
}

fn bad(path: &Path, what: &'static str, problem: String) -> TlsError {
    TlsError::Bad {
        path: path.to_owned(),
        what,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_taken_if_it_is_ours_alone_or_roots_and_our_groups() {
        for (mode, owner) in [(0o600, 7), (0o400, 7), (0o640, 0), (0o440, 0), (0o600, 0)] {
            assert_eq!(exposed(mode, owner, 7), None, "{mode:o} of {owner}");
        }
        for (mode, owner, command) in [
            (0o640, 7, "chmod 600"),
            (0o604, 7, "chmod 600"),
            (0o644, 0, "chmod 640"),
            (0o660, 0, "chmod 640"),
            (0o600, 8, "chown 7"),
        ] {
            let found = exposed(mode, owner, 7);
            assert_eq!(found.as_deref(), Some(command), "{mode:o} of {owner}");
        }
    }

    #[test]
    fn an_exposed_key_is_refused_with_its_mode_and_what_helps() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("node.key");
        fs::write(&key, "").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
        let error = check_key(&key).expect_err("all can read it").to_string();
        assert!(error.contains("mode 0644"), "{error}");
        assert!(error.contains("chmod 6"), "{error}");
        assert!(error.ends_with("node.key"), "{error}");
    }

    #[test]
    fn what_is_no_pem_is_refused_with_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        fs::write(&path, "no certificate").expect("written");
        let error = authorities(&path).expect_err("nothing in it").to_string();
        assert!(error.contains("ca.pem") && error.contains("PEM"), "{error}");
        let error = authorities(dir.path())
            .expect_err("a directory")
            .to_string();
        assert!(error.contains("no regular file"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_with_both_numbers_and_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        let file = File::create(&path).expect("made");
        file.set_len(FILE_BYTES_MAX).expect("as long as may be");
        let bytes = read_file(&path, "a certificate").expect("read");
        assert_eq!(bytes.len() as u64, FILE_BYTES_MAX);
        file.set_len(FILE_BYTES_MAX + 1).expect("longer");
        let error = authorities(&path).expect_err("too large").to_string();
        assert!(error.contains("4194305"), "{error}");
        assert!(error.contains("limit 4194304"), "{error}");
        // A device has no end.
        read_file(Path::new("/dev/zero"), "a certificate").expect_err("no regular file");
    }
}
