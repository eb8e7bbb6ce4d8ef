//! An authority and certificates for tests, good ones and bad ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use quorate_client::{ClientFiles, ClientTls};
use quorate_node::Config;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority whose files are in a directory.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one; its certificate is `DIR/ca.pem`.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, dir.display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        fs::write(dir.join("ca.pem"), &pem)?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Its certificate's file.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of a node on this machine.
    pub fn node(&self, name: &str) -> Result<Pair> {
        let uri = format!("spiffe://test/node/{name}");
        self.sign(name, &[&uri], &["127.0.0.1"], SystemTime::now() + 365 * DAY)
    }

    /// A certificate of a client.
    pub fn client(&self, name: &str) -> Result<Pair> {
        let uri = format!("spiffe://test/client/{name}");
        self.sign(name, &[&uri], &[], SystemTime::now() + 365 * DAY)
    }

    /// Any certificate; its files are `DIR/NAME.pem` and `DIR/NAME.key`.
    pub fn sign(
        &self,
        name: &str,
        uris: &[&str],
        hosts: &[&str],
        not_after: SystemTime,
    ) -> Result<Pair> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = (SystemTime::now() - 2 * DAY).into();
        params.not_after = not_after.into();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            cert: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        };
        replace(&pair.key, &key.serialize_pem(), 0o600)?;
        replace(&pair.cert, &certificate.pem(), 0o644)?;
        Ok(pair)
    }
}

/// Writes a file whole, as programs that renew certificates do.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    Ok(fs::rename(&beside, path)?)
}

/// Gives a node these files.
pub fn configure(config: &mut Config, pair: &Pair, ca: &Path) {
    config.tls.cert.clone_from(&pair.cert);
    config.tls.key.clone_from(&pair.key);
    ca.clone_into(&mut config.tls.ca);
    config.tls.reload_ms = 100;
}

/// TLS of a client with these files.
pub fn client_tls(ca: &Path, pair: Option<&Pair>) -> Result<ClientTls> {
    Ok(ClientTls::read(ClientFiles {
        ca: ca.to_owned(),
        identity: pair.map(|pair| (pair.cert.clone(), pair.key.clone())),
    })?)
}
