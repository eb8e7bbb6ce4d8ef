//! The certificates of this node: read at the start, read again when their files change.
//!
//! A file that cannot be used is refused with a log line and an alarm, and what was read before
//! stays in use. Connections that are open stay open: a new authority counts for new ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_rpc::certificate::{Certificate, Names};
use quorate_rpc::tls::{
    ALPN, Connector, Identity, NodeVerifier, TlsError, VERSIONS, authorities, certificates,
    node_config, not_a_node, provider, read_file,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::alarm::{AlarmKind, Alarms};
use crate::config::{ClientCertificate, Config, TlsSection};

const DAY_SECS: i64 = 86_400;

/// Hosts of the members, as far as this node knows them.
type Members = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// The certificates of a node, and what follows from them.
pub struct Tls {
    section: TlsSection,
    members: Arc<OnceLock<Members>>,
    current: RwLock<Arc<Current>>,
}

/// What was read together.
struct Current {
    clients: Arc<ServerConfig>,
    peers: Arc<ServerConfig>,
    calls: Arc<ClientConfig>,
    ends: Vec<End>,
    contents: Vec<Vec<u8>>,
}

/// When a certificate in a file ends.
struct End {
    /// Of a certificate that this node shows.
    own: bool,
    path: PathBuf,
    names: Names,
    not_after: i64,
}

/// Which of a node's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Clients and operators.
    Clients,
    /// The other nodes.
    Peers,
}

/// Reads the certificates and keys that the configuration names, and says what is wrong with them.
pub fn check(config: &Config) -> Result<(), TlsError> {
    Tls::read(config).map(drop)
}

impl Tls {
    /// Reads what the configuration names; none if it names nothing.
    pub fn read(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let section = config.tls.clone();
        if !section.is_on() {
            return Ok(None);
        }
        let members = Arc::default();
        let current = Current::read(&section, &members)?;
        Ok(Some(Arc::new(Self {
            section,
            members,
            current: RwLock::new(Arc::new(current)),
        })))
    }

    /// From now on the hosts of members are those of nodes.
    pub fn know_members(&self, members: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        // Who comes second knows the same members.
        let _ = self.members.set(Box::new(members));
    }

    /// What a port answers a new connection with.
    pub fn server(&self, port: Port) -> Arc<ServerConfig> {
        let current = self.current();
        Arc::clone(match port {
            Port::Clients => &current.clients,
            Port::Peers => &current.peers,
        })
    }

    /// Whether a port takes connections without TLS beside those with it.
    pub fn takes_plain(&self) -> bool {
        self.section.accept_plaintext
    }

    /// How other nodes are called.
    pub fn connector(self: &Arc<Self>) -> Connector {
        let this = Arc::clone(self);
        let connector = Connector::tls(Arc::new(move || Arc::clone(&this.current().calls)));
        match self.takes_plain() {
            true => connector.or_plain(),
            false => connector,
        }
    }

    fn current(&self) -> Arc<Current> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Looks at the files again and again, and at the clock.
    pub async fn run(self: Arc<Self>, alarms: Arc<Alarms>) {
        let mut refused = Vec::new();
        loop {
            self.tell_ends(&alarms);
            tokio::time::sleep(Duration::from_millis(self.section.reload_ms)).await;
            let (this, alarms) = (Arc::clone(&self), Arc::clone(&alarms));
            let looked = tokio::task::spawn_blocking(move || this.look(refused, &alarms)).await;
            refused = looked.unwrap_or_default();
        }
    }

    /// Takes what has changed. Answers the contents that it refused, to tell them once.
    fn look(&self, refused: Vec<Vec<u8>>, alarms: &Alarms) -> Vec<Vec<u8>> {
        let contents = contents(&self.section);
        if contents == self.current().contents {
            alarms.clear(AlarmKind::CertificateRefused);
            return Vec::new();
        }
        match Current::read(&self.section, &self.members).and_then(Current::not_over) {
            Ok(new) => {
                let names: Vec<String> = new.ends.iter().map(End::to_string).collect();
                tracing::info!(certificates = names.join("; "), "read new certificates");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                alarms.clear(AlarmKind::CertificateRefused);
                Vec::new()
            }
            // A certificate and its key are not replaced in one instant: only what is the same the
            // next time is wrong.
            Err(error) if contents == refused => {
                let text = format!("{error}; the certificates that were read before stay in use");
                alarms.raise(AlarmKind::CertificateRefused, text);
                contents
            }
            Err(_) => contents,
        }
    }

    fn tell_ends(&self, alarms: &Alarms) {
        let current = self.current();
        let now = unix_now();
        let days = i64::try_from(self.section.expiring_days).unwrap_or(i64::MAX);
        let soon = now.saturating_add(days.saturating_mul(DAY_SECS));
        let ending = current.ends.iter().filter(|end| end.not_after < soon);
        let texts: Vec<String> = ending.map(|end| end.told(now)).collect();
        match texts.is_empty() {
            true => alarms.clear(AlarmKind::CertificateExpiring),
            false => alarms.raise(AlarmKind::CertificateExpiring, texts.join("; ")),
        }
    }
}

impl Current {
    fn read(section: &TlsSection, members: &Arc<OnceLock<Members>>) -> Result<Self, TlsError> {
        // Before the files are read for good: what changes in between is seen the next time.
        let contents = contents(section);
        let (cert, key, ca) = section.peer_files();
        let roots = authorities(ca)?;
        let identity = Identity::read(cert, key)?;
        let own = identity.certificate()?.names;
        let domain = own.node().map(|(domain, _)| domain.to_owned());
        let called = NodeVerifier::new(Arc::clone(&roots), domain.clone());
        let calling = NodesOnly {
            inner: verifier(roots, false)?,
            domain,
            hosts: section.peer_hosts.clone(),
            members: Arc::clone(members),
        };
        let calls = node_config(called, identity)?;
        let optional = section.client_certificate == ClientCertificate::Optional;
        let clients = verifier(authorities(&section.ca)?, optional)?;
        let own_identity = Identity::read(&section.cert, &section.key)?;
        Ok(Self {
            clients: server(clients, own_identity)?,
            peers: server(Arc::new(calling), Identity::read(cert, key)?)?,
            calls: Arc::new(calls),
            ends: ends(section)?,
            contents,
        })
    }

    /// Refuses a certificate of this node that has ended: the one in use may still hold. An
    /// authority that has ended proves nobody, and does no harm beside others.
    fn not_over(self) -> Result<Self, TlsError> {
        let now = unix_now();
        let over = self.ends.iter().find(|end| end.own && end.not_after <= now);
        match over {
            None => Ok(self),
            Some(end) => Err(TlsError::Bad {
                path: end.path.clone(),
                what: "a certificate that holds",
                problem: format!("the certificate ({}) has ended", end.names),
            }),
        }
    }
}

impl End {
    fn told(&self, now: i64) -> String {
        let days = (self.not_after - now).div_euclid(DAY_SECS);
        let when = match days {
            ..0 => "has ended".to_owned(),
            0 => "ends within a day".to_owned(),
            days => format!("ends in {days} days"),
        };
        format!(
            "the certificate in {} ({}) {when}: put a new one there, it is read by itself",
            self.path.display(),
            self.names
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.names)
    }
}

/// The bytes of all files, to see a change; nothing for one that cannot be read, which is told when
/// it is read for good.
fn contents(section: &TlsSection) -> Vec<Vec<u8>> {
    let files = section.files().into_iter();
    files
        .map(|file| read_file(file, "a certificate or a private key").unwrap_or_default())
        .collect()
}

/// When the certificates of this node end, and those of the authorities.
fn ends(section: &TlsSection) -> Result<Vec<End>, TlsError> {
    let (cert, _, ca) = section.peer_files();
    let own: [&Path; 2] = [&section.cert, cert];
    let mut files = vec![own[0], own[1], &section.ca, ca];
    files.sort_unstable();
    files.dedup();
    let mut ends = Vec::new();
    for path in files {
        for der in certificates(path, "a certificate")? {
            let read = Certificate::parse(&der).map_err(|problem| TlsError::Bad {
                path: path.to_owned(),
                what: "a certificate",
                problem,
            })?;
            ends.push(End {
                own: own.contains(&path),
                path: path.to_owned(),
                names: read.names,
                not_after: read.not_after,
            });
        }
    }
    Ok(ends)
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

fn verifier(
    roots: Arc<RootCertStore>,
    optional: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let built = match optional {
        true => builder.allow_unauthenticated().build(),
        false => builder.build(),
    };
    Ok(built.expect("there is an authority, and no list of revoked certificates"))
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    identity: Identity,
) -> Result<Arc<ServerConfig>, TlsError> {
    let Identity { chain, key, files } = identity;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| Identity::problem(files, &error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Takes certificates of nodes only.
struct NodesOnly {
    inner: Arc<dyn ClientCertVerifier>,
    domain: Option<String>,
    hosts: Vec<String>,
    members: Arc<OnceLock<Members>>,
}

impl fmt::Debug for NodesOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodesOnly")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for NodesOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let names = Certificate::parse(end_entity).map_err(bad)?.names;
        let mut hosts = self.hosts.clone();
        if let Some(members) = self.members.get() {
            hosts.extend(members());
        }
        match not_a_node(&names, self.domain.as_deref(), &hosts) {
            None => Ok(verified),
            Some(problem) => {
                crate::server::refused("peers", None, &problem);
                let refused = CertificateError::ApplicationVerificationFailure;
                Err(Error::InvalidCertificate(refused))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
