//! `quorate cert`: a small authority and its certificates, for those who have none.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_rpc::certificate::Certificate;
use quorate_rpc::tls::certificates;
use quorate_statemachine::{Name, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::Serialize;

use crate::args::cert::{Ca, Client, Node, Output, Signer, Verb};
use crate::exit::Failure;
use crate::output::{Printer, Row};
use crate::value::time;

/// A key that signs is changed rarely: all files of nodes and clients name it.
const CA_DAYS: u32 = 3_650;

/// Renewal is a copy of two files; a stolen key is good for no longer than this.
const LEAF_DAYS: u32 = 365;

/// Clocks of machines differ.
const BACKDATED: Duration = Duration::from_secs(3_600);

const DAY: Duration = Duration::from_secs(86_400);

/// Makes certificates, or shows them.
pub fn run(verb: &Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::Ca(ca) => authority(ca),
        Verb::Node(node) => of_node(node),
        Verb::Client(client) => of_client(client),
        Verb::Show { file } => show(file, printer),
    }
}

fn authority(ca: &Ca) -> Result<(), Failure> {
    let domain = checked("domain", &ca.domain)?;
    let mut params = lasting(ca.output.days.unwrap_or(CA_DAYS));
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{domain} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    write(&ca.output, "ca", &certificate.pem(), &key)
}

fn of_node(node: &Node) -> Result<(), Failure> {
    let name = checked("name", &node.name)?;
    let signer = Authority::read(&node.signer)?;
    let mut params = leaf(name, &node.output);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let mut names = vec![uri(&format!("spiffe://{}/node/{name}", signer.domain))?];
    for host in &node.hosts {
        names.push(host_name(host)?);
    }
    params.subject_alt_names = names;
    signer.sign(params, &node.output, name)
}

fn of_client(client: &Client) -> Result<(), Failure> {
    let name = checked("name", &client.name)?;
    let signer = Authority::read(&client.signer)?;
    let mut params = leaf(name, &client.output);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(&format!("spiffe://{}/client/{name}", signer.domain))?];
    signer.sign(params, &client.output, name)
}

/// What signs.
struct Authority {
    domain: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn read(signer: &Signer) -> Result<Self, Failure> {
        let (cert, key) = (signer.ca.join("ca.pem"), signer.ca.join("ca.key"));
        let found = certificates(&cert, "the certificate of an authority");
        let found = found.map_err(|error| {
            Failure::invalid(format!(
                "{error}; `quorate cert ca` makes an authority, --ca says where it is"
            ))
        })?;
        let wrong = |path: &Path, problem: &dyn std::fmt::Display| {
            Failure::invalid(format!("{}: {problem}", path.display()))
        };
        let read = Certificate::parse(&found[0]).map_err(|problem| wrong(&cert, &problem))?;
        let domain = read.names.domain().ok_or_else(|| {
            wrong(
                &cert,
                &"it has no URI spiffe://DOMAIN; `quorate cert ca` makes one that has",
            )
        })?;
        let pem = std::fs::read_to_string(&key).map_err(|error| wrong(&key, &error))?;
        let pair = KeyPair::from_pem(&pem).map_err(|error| wrong(&key, &error))?;
        let issuer = Issuer::from_ca_cert_der(&found[0], pair);
        Ok(Self {
            domain: domain.to_owned(),
            issuer: issuer.map_err(|error| wrong(&cert, &error))?,
        })
    }

    fn sign(&self, params: CertificateParams, output: &Output, name: &str) -> Result<(), Failure> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let signed = params.signed_by(&key, &self.issuer);
        let certificate = signed.map_err(|error| failed(&error))?;
        write(output, name, &certificate.pem(), &key)
    }
}

fn leaf(name: &str, output: &Output) -> CertificateParams {
    let mut params = lasting(output.days.unwrap_or(LEAF_DAYS));
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn lasting(days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + DAY * days).into();
    params
}

/// A name that can stand in a URI and in the name of a file.
fn checked<'a>(field: &'static str, name: &'a str) -> Result<&'a str, Failure> {
    Name::parse(field, name)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(name);
    }
    Err(Failure::invalid(format!(
        "{field} {name:?}: give letters, digits, '-', '_' and '.', not '.' first"
    )))
}

fn host_name(host: &str) -> Result<SanType, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let name = host.try_into().ok().map(SanType::DnsName);
    name.filter(|_| !bare.is_empty() && bare.bytes().all(plain))
        .ok_or_else(|| {
            Failure::invalid(format!(
                "--host {host:?}: give a DNS name or an address, no port"
            ))
        })
}

fn uri(text: &str) -> Result<SanType, Failure> {
    let text = text.try_into().map_err(|error| failed(&error))?;
    Ok(SanType::URI(text))
}

/// Writes certificate and key, each whole or not at all: a node may be reading them.
fn write(output: &Output, name: &str, certificate: &str, key: &KeyPair) -> Result<(), Failure> {
    let (cert_path, key_path) = (
        output.out.join(format!("{name}.pem")),
        output.out.join(format!("{name}.key")),
    );
    for path in [&cert_path, &key_path] {
        if path.exists() && !output.force {
            let message = format!("{} is there already; --force replaces it", path.display());
            return Err(Failure::invalid(message));
        }
    }
    std::fs::create_dir_all(&output.out).map_err(|error| of_file(&output.out, &error))?;
    put(&key_path, &key.serialize_pem(), 0o600)?;
    put(&cert_path, certificate, 0o644)?;
    eprintln!("wrote {} and {}", cert_path.display(), key_path.display());
    Ok(())
}

fn put(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let written = || {
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.persist(path).map_err(|error| error.error)
    };
    written().map(drop).map_err(|error| of_file(path, &error))
}

fn show(file: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let found = certificates(file, "certificates");
    let found = found.map_err(|error| Failure::invalid(error.to_string()))?;
    let rows: Result<Vec<CertificateRow>, Failure> = found
        .iter()
        .map(|der| {
            let read = Certificate::parse(der).map_err(Failure::invalid)?;
            Ok(CertificateRow::new(&read, unix_now()))
        })
        .collect();
    Ok(printer.list(&rows?)?)
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

#[derive(Debug, Serialize)]
struct CertificateRow {
    common_name: Option<String>,
    dns: Vec<String>,
    ip: Vec<String>,
    uri: Vec<String>,
    issuer: String,
    authority: bool,
    not_before: String,
    not_after: String,
    days_left: i64,
    #[serde(skip)]
    names: String,
}

impl CertificateRow {
    fn new(read: &Certificate, now: i64) -> Self {
        let at = |seconds: i64| time(Timestamp(u64::try_from(seconds).unwrap_or(0) * 1_000));
        Self {
            common_name: read.names.common_name.clone(),
            dns: read.names.dns.clone(),
            ip: read.names.ip.iter().map(ToString::to_string).collect(),
            uri: read.names.uri.clone(),
            issuer: read.issuer.clone(),
            authority: read.authority,
            not_before: at(read.not_before),
            not_after: at(read.not_after),
            days_left: (read.not_after - now).div_euclid(86_400),
            names: read.names.to_string(),
        }
    }
}

impl Row for CertificateRow {
    const HEADER: &'static [&'static str] = &["NAMES", "ISSUER", "AUTHORITY", "ENDS", "DAYS LEFT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.names.clone(),
            self.issuer.clone(),
            if self.authority { "yes" } else { "no" }.to_owned(),
            self.not_after.clone(),
            self.days_left.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.names.clone()
    }

    fn alarming(&self) -> bool {
        self.days_left < 14
    }
}

fn failed(error: &rcgen::Error) -> Failure {
    Failure::error("certificate", error.to_string())
}

fn of_file(path: &Path, error: &std::io::Error) -> Failure {
    Failure::error("io", format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::output::{Captured, Format};

    fn output(dir: &Path) -> Output {
        Output {
            out: dir.to_owned(),
            days: None,
            force: false,
        }
    }

    fn made(dir: &Path) -> Result<(), Failure> {
        authority(&Ca {
            domain: "q".to_owned(),
            output: output(dir),
        })?;
        of_node(&Node {
            name: "n1".to_owned(),
            hosts: vec!["n1.example".to_owned(), "10.0.0.1".to_owned()],
            signer: Signer { ca: dir.to_owned() },
            output: output(dir),
        })
    }

    #[test]
    fn a_node_has_its_uri_and_its_hosts_and_a_key_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        made(dir.path()).expect("made");
        let captured = Captured::default();
        let file = dir.path().join("n1.pem");
        show(&file, &mut captured.printer(Format::Table)).expect("shown");
        let shown = captured.take();
        let names = "CN=n1, DNS:n1.example, IP:10.0.0.1, URI:spiffe://q/node/n1";
        assert!(shown.contains(names), "{shown}");
        assert!(shown.contains("CN=q authority"), "{shown}");
        for key in ["ca.key", "n1.key"] {
            let metadata = dir.path().join(key).metadata().expect("it is there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{key}");
        }
        let again = made(dir.path()).expect_err("it is there");
        assert!(again.message().contains("--force"), "{again:?}");
    }

    #[test]
    fn names_that_could_be_paths_and_hosts_with_ports_are_refused() {
        for name in ["a/b", "../a", ".a", "a b", ""] {
            assert_eq!(checked("name", name).expect_err(name).exit(), Exit::Invalid);
        }
        for host in ["a:7400", "a b", "*.", ""] {
            assert_eq!(host_name(host).expect_err(host).exit(), Exit::Invalid);
        }
        assert!(host_name("*.q.svc").is_ok());
    }
}
