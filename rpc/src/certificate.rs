//! What a certificate says of its owner, and until when.

use std::fmt;
use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the names of nodes and of authorities begin with.
const SPIFFE: &str = "spiffe://";

/// The names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// DNS names, some with `*.` in front.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
    /// URIs, as `spiffe://quorate/node/n1`.
    pub uri: Vec<String>,
}

/// What is read of a certificate. Reading it proves nothing: whoever trusts it has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub names: Names,
    /// The subject of whoever signed it.
    pub issuer: String,
    /// From when it holds, in seconds since 1970.
    pub not_before: i64,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
    /// Whether its owner may sign certificates.
    pub authority: bool,
}

impl Certificate {
    /// Reads a certificate. The error says what is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, read) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        Ok(Self {
            names: Names::of(&read)?,
            issuer: read.issuer().to_string(),
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            authority: read.is_ca(),
        })
    }
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut common_names = certificate.subject().iter_common_name();
        let common_name = common_names.next().and_then(|name| name.as_str().ok());
        let mut names = Self {
            common_name: common_name.map(str::to_owned),
            ..Self::default()
        };
        let alternative = certificate.subject_alternative_name();
        let Some(alternative) = alternative.map_err(|error| error.to_string())? else {
            return Ok(names);
        };
        for name in &alternative.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => names.uri.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => names.ip.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(names)
    }

    /// Trust domain and name of the node that it is the certificate of, from its URI
    /// `spiffe://DOMAIN/node/NAME`.
    #[must_use]
    pub fn node(&self) -> Option<(&str, &str)> {
        self.uri.iter().find_map(|uri| {
            let (domain, path) = uri.strip_prefix(SPIFFE)?.split_once('/')?;
            let name = path.strip_prefix("node/")?;
            let whole = !domain.is_empty() && !name.is_empty() && !name.contains('/');
            whole.then_some((domain, name))
        })
    }

    /// The trust domain of an authority, from its URI `spiffe://DOMAIN`.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.uri.iter().find_map(|uri| {
            let domain = uri.strip_prefix(SPIFFE)?;
            (!domain.is_empty() && !domain.contains('/')).then_some(domain)
        })
    }

    /// What its owner is called as a client: the common name, else the first URI.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        let common_name = self.common_name.as_deref().filter(|name| !name.is_empty());
        common_name.or_else(|| self.uri.first().map(String::as_str))
    }

    /// Whether it is the certificate of this host: a DNS name, or an address. `*.` in front of a
    /// name of the certificate stands for one label.
    #[must_use]
    pub fn has_host(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.ip.contains(&address);
        }
        let matches = |name: &String| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| {
                !label.is_empty() && rest.eq_ignore_ascii_case(parent)
            }),
            None => name.eq_ignore_ascii_case(host),
        };
        self.dns.iter().any(matches)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common_name = self.common_name.iter().map(|name| format!("CN={name}"));
        let dns = self.dns.iter().map(|name| format!("DNS:{name}"));
        let ip = self.ip.iter().map(|ip| format!("IP:{ip}"));
        let uri = self.uri.iter().map(|uri| format!("URI:{uri}"));
        let all: Vec<String> = common_name.chain(dns).chain(ip).chain(uri).collect();
        match all.is_empty() {
            true => f.write_str("no name"),
            false => f.write_str(&all.join(", ")),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_uri(uri: &str) -> Names {
        Names {
            uri: vec![uri.to_owned()],
            ..Names::default()
        }
    }

    #[test]
    fn a_node_is_named_by_a_whole_uri_only() {
        let node = with_uri("spiffe://quorate/node/n1");
        assert_eq!(node.node(), Some(("quorate", "n1")));
        for other in [
            "spiffe://quorate/client/n1",
            "spiffe://quorate/node/",
            "spiffe:///node/n1",
            "spiffe://quorate/node/n1/x",
            "https://quorate/node/n1",
            "spiffe://quorate",
        ] {
            assert_eq!(with_uri(other).node(), None, "{other}");
        }
        assert_eq!(with_uri("spiffe://quorate").domain(), Some("quorate"));
        assert_eq!(node.domain(), None);
    }

    #[test]
    fn a_client_is_called_by_its_common_name_or_else_by_its_uri() {
        let mut names = with_uri("spiffe://q/client/ci");
        assert_eq!(names.client(), Some("spiffe://q/client/ci"));
        names.common_name = Some(String::new());
        assert_eq!(names.client(), Some("spiffe://q/client/ci"));
        names.common_name = Some("ci".to_owned());
        assert_eq!(names.client(), Some("ci"));
        assert_eq!(Names::default().client(), None);
    }

    #[test]
    fn a_host_is_a_name_an_address_or_one_label_under_a_wildcard() {
        let names = Names {
            dns: vec!["N1.example".to_owned(), "*.q.svc".to_owned()],
            ip: vec!["10.0.0.1".parse().expect("v4"), "::1".parse().expect("v6")],
            ..Names::default()
        };
        for host in ["n1.example", "a.q.svc", "10.0.0.1", "::1", "[::1]"] {
            assert!(names.has_host(host), "{host}");
        }
        for host in ["q.svc", "a.b.q.svc", ".q.svc", "n2.example", "10.0.0.2", ""] {
            assert!(!names.has_host(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Certificate::parse(b"").is_err());
        assert!(Certificate::parse(&[0x30; 64]).is_err());
    }
}
