//! Stores that speak S3.
//!
//! Credentials come from the environment (`AWS_…`) or from the machine (its role), each time anew,
//! and are in no option and in no text. TLS is that of the rest of the program.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
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
    let mut builder = AmazonS3Builder::from_env();
    let of_env = |key| builder.get_config_value(&key);
    let named = match endpoint {
        "" => of_env(AmazonS3ConfigKey::S3Endpoint).or_else(|| of_env(AmazonS3ConfigKey::Endpoint)),
        given => Some(given.to_owned()),
    };
    if let Some(named) = named {
        let plain = named.starts_with("http://");
        // The one of the two that goes before the other.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, named);
        builder = builder.with_allow_http(plain);
    }
    let builder = builder.with_http_connector(Connector { tls });
    Ok(settled(builder, bucket).build()?)
}

fn settled(builder: AmazonS3Builder, bucket: &str) -> AmazonS3Builder {
    builder
        .with_bucket_name(bucket)
        // One is removed at a time, and not every store can remove many.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRIES_MAX,
            ..RetryConfig::default()
        })
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

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A store with nothing in it. Answers where it is, and its certificate.
    async fn empty_store() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let cert = params.self_signed(&key).expect("a certificate");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("it is one");
        let tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private)
            .expect("they fit");
        let (acceptor, pem) = (TlsAcceptor::from(Arc::new(tls)), cert.pem());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who does not know the certificate goes away.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut request = vec![0; 8 << 10];
                    let _ = stream.read(&mut request).await;
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 37\r\n\r\n\
                                  <ListBucketResult></ListBucketResult>";
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        (url, pem)
    }

    fn store(url: &str, ca: Option<&Path>) -> AmazonS3 {
        let tls = client_config(ca).expect("certificates");
        let builder = AmazonS3Builder::new()
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_endpoint(url)
            .with_http_connector(Connector { tls });
        settled(builder, "b").build().expect("a store")
    }

    #[tokio::test]
    async fn a_store_is_believed_if_its_authority_is_the_one_that_was_named() {
        let (url, pem) = empty_store().await;
        let dir = tempfile::tempdir().expect("a directory");
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, pem).expect("room");
        let listed: Result<Vec<_>, _> = store(&url, Some(&ca)).list(None).try_collect().await;
        assert_eq!(listed.expect("it is believed"), []);
        let listed: Result<Vec<_>, _> = store(&url, None).list(None).try_collect().await;
        let error = listed.expect_err("nobody knows it").to_string();
        assert!(error.contains(&url), "{error}");
    }
}
