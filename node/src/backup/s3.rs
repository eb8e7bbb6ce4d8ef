//! Stores that speak S3.
//!
//! Credentials come from the environment (`AWS_…`) or from the machine (its role), each time anew,
//! and are in no option and in no text. TLS is that of the rest of the program.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, RetryConfig};
use quorate_rpc::tls::{VERSIONS, authorities, provider};
use rustls::{ClientConfig, RootCertStore};

use super::store::BackupError;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A part of 16 MiB passes in this time at 140 kB/s.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Tries of one request, and how long they may take together.
const RETRIES: usize = 3;
const RETRIES_MAX: Duration = Duration::from_secs(60);

/// The authorities of a store's certificate (PEM), as other programs are told them.
const CA_VARIABLE: &str = "AWS_CA_BUNDLE";

/// The bucket at `endpoint`, or at the one that the environment names.
pub fn open(bucket: &str, endpoint: &str) -> Result<AmazonS3, BackupError> {
    let tls = client_config(std::env::var_os(CA_VARIABLE).as_deref().map(Path::new))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(Connector { tls })
        // One is removed at a time, and not every store can remove many.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRIES_MAX,
            ..RetryConfig::default()
        });
    if !endpoint.is_empty() {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    Ok(builder.build()?)
}

fn client_config(ca: Option<&Path>) -> Result<ClientConfig, BackupError> {
    let roots = match ca {
        Some(ca) => authorities(ca)?,
        None => Arc::new(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        }),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(std::io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes connections with the program's own TLS: the default would ask for a provider that is set
/// for all of the process, which belongs to the host of an embedded node.
#[derive(Debug)]
struct Connector {
    tls: ClientConfig,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .https_only(plain.as_deref() != Some("true"))
            .http1_only()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(client))
    }
}
