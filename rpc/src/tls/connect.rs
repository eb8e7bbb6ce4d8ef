//! Making connections, with TLS or without.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use crate::net::TcpStream;

/// The configuration that counts at the moment. It may read files: it is asked on a thread that may
/// block.
pub type Source = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// Makes connections for channels of tonic.
#[derive(Clone)]
pub struct Connector {
    tls: Option<Source>,
    /// Whether an end that speaks no TLS is spoken to without it.
    or_plain: bool,
}

impl Connector {
    /// Without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            tls: None,
            or_plain: false,
        }
    }

    /// With TLS as the source says at the moment of each connection.
    #[must_use]
    pub fn tls(source: Source) -> Self {
        Self {
            tls: Some(source),
            or_plain: false,
        }
    }

    /// The same, and without TLS to an end that speaks none: while a cluster is moved to TLS.
    #[must_use]
    pub fn or_plain(mut self) -> Self {
        self.or_plain = true;
        self
    }

    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let host = uri.host().ok_or_else(|| wrong("there is no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or_else(|| wrong("there is no port"))?;
        let stream = dial(host, port).await?;
        let Some(source) = &self.tls else {
            return greeted_plainly(stream).await;
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| wrong("the host is neither a DNS name nor an address"))?;
        let source = Arc::clone(source);
        let config = tokio::task::spawn_blocking(move || source()).await;
        let config = config.map_err(io::Error::other)?;
        let opened = TlsConnector::from(config).connect(name, stream).await;
        match opened {
            Ok(mut stream) => {
                refusal(stream.fill_buf().await.map_err(told)?)?;
                Ok(Stream::Tls(Box::new(stream.into())))
            }
            Err(error) if self.or_plain && speaks_no_tls(&error) => {
                greeted_plainly(dial(host, port).await?).await
            }
            Err(error) => Err(told(error)),
        }
    }
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A port that has TLS waits for the first byte to know whether this has it too: so the preface,
/// which is the same for every connection, is sent before the node is listened to.
async fn greeted_plainly(mut stream: TcpStream) -> io::Result<Stream> {
    stream.write_all(PREFACE).await?;
    let mut first = [0; GREETING_BYTES];
    let length = stream.peek(&mut first).await?;
    refusal(&first[..length])?;
    Ok(Stream::Begun {
        stream,
        sent: PREFACE.len(),
    })
}

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the first bytes that a node says. They are its settings, which a server of HTTP/2 sends
/// unasked. A connection counts as made only then: a node refuses a certificate when its client
/// takes TLS for set up already, and what was asked meanwhile would be told nothing of the reason.
fn refusal(first: &[u8]) -> io::Result<()> {
    if first.is_empty() {
        let text = "it hung up before it said anything";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    match first.strip_prefix(&NO_SETTINGS) {
        // The header of GOAWAY, the last stream and a code; then words.
        Some(rest) if rest.get(3) == Some(&GOAWAY) && rest.len() > GOAWAY_BYTES => {
            let words = String::from_utf8_lossy(&rest[GOAWAY_BYTES..]);
            Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                words.into_owned(),
            ))
        }
        _ => Ok(()),
    }
}

/// The frames by which a node refuses a connection of HTTP/2 before anything was asked on it: no
/// settings, then GOAWAY with a code of RFC 9113, section 7, and a reason in words.
#[must_use]
pub fn refusal_frames(code: u8, words: &str) -> Vec<u8> {
    let words = &words.as_bytes()[..words.len().min(WORDS_BYTES_MAX)];
    let length = u8::try_from(8 + words.len()).expect("words are shorter than 247");
    let header = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
    [
        &NO_SETTINGS[..],
        &header[..],
        &[0, 0, 0, 0, 0, 0, 0, code],
        words,
    ]
    .concat()
}

/// What is looked at of the first bytes: a refusal is no longer.
const GREETING_BYTES: usize = 256;

/// Longest reason of a refusal.
const WORDS_BYTES_MAX: usize = 224;

/// A frame of SETTINGS without any.
const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The type of a frame that ends a connection, and the bytes of one before its words.
const GOAWAY: u8 = 7;
const GOAWAY_BYTES: usize = 17;

/// What answers a TLS greeting with something else, or hangs up.
fn speaks_no_tls(error: &io::Error) -> bool {
    match error
        .get_ref()
        .and_then(|it| it.downcast_ref::<rustls::Error>())
    {
        Some(error) => matches!(error, rustls::Error::InvalidMessage(_)),
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
    }
}

/// The same error with what to do about it.
fn told(error: io::Error) -> io::Error {
    let text = error.to_string();
    let text = match advice(&text) {
        Some(advice) => format!("TLS: {text}: {advice}"),
        None => format!("TLS: {text}"),
    };
    io::Error::new(error.kind(), text)
}

/// What to do about an error of TLS, from its text: between here and its cause, libraries keep
/// nothing but the text.
#[must_use]
pub fn advice(text: &str) -> Option<&'static str> {
    const ADVICE: &[(&str, &str)] = &[
        (
            "alert: CertificateRequired",
            "the node takes only clients that show a certificate (--cert and --key)",
        ),
        (
            "alert: UnknownCA",
            "the node does not know the authority of the certificate that was shown",
        ),
        (
            "alert: DecryptError",
            "the node does not know the authority of the certificate that was shown",
        ),
        (
            "alert: CertificateExpired",
            "the certificate that was shown has expired",
        ),
        (
            "alert: AccessDenied",
            "the certificate that was shown is not a node's, and only nodes are taken there",
        ),
        (
            "alert: BadCertificate",
            "the node refuses the certificate that was shown",
        ),
        (
            "UnknownIssuer",
            "the node's certificate is not of an authority in --cacert (tls.ca, tls.peer_ca)",
        ),
        (
            "not valid for name",
            "the node's certificate is for other hosts than the one that was asked for",
        ),
        (
            "certificate expired",
            "the node's certificate has expired, or the clock of this machine is wrong",
        ),
        (
            "certificate not valid yet",
            "the node's certificate holds only later, or the clock of this machine is wrong",
        ),
        (
            "before it said anything",
            "it may take no more connections, or have just stopped",
        ),
        ("corrupt message", "what listens there does not speak TLS"),
        (
            "handshake eof",
            "what listens there speaks no TLS, or takes no more connections",
        ),
    ];
    let found = ADVICE.iter().find(|(part, _)| text.contains(part));
    found.map(|(_, advice)| *advice)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(uri).await.map(TokioIo::new) })
    }
}

/// A connection with TLS or without.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// Without, by its client, which has sent the preface already.
    Begun {
        /// The connection.
        stream: TcpStream,
        /// Bytes that whoever writes next will say once more, and that are not sent again.
        sent: usize,
    },
    /// With.
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) | Self::Begun { stream, .. } => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Begun { sent, .. } if *sent > 0 => {
                let again = bytes.len().min(*sent);
                *sent -= again;
                Poll::Ready(Ok(again))
            }
            Self::Plain(stream) | Self::Begun { stream, .. } => {
                Pin::new(stream).poll_write(cx, bytes)
            }
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Begun { sent, .. } if *sent > 0 => {
                let all: usize = parts.iter().map(|part| part.len()).sum();
                let again = all.min(*sent);
                *sent -= again;
                Poll::Ready(Ok(again))
            }
            Self::Plain(stream) | Self::Begun { stream, .. } => {
                Pin::new(stream).poll_write_vectored(cx, parts)
            }
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Begun { stream, sent } => *sent == 0 && stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) | Self::Begun { stream, .. } => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) | Self::Begun { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_said_and_settings_are_none() {
        let error = refusal(&refusal_frames(0xb, "too many")).expect_err("it is one");
        assert_eq!(error.to_string(), "too many");
        let frames = refusal_frames(0xb, &"x".repeat(1_000));
        assert!(frames.len() <= GREETING_BYTES, "{}", frames.len());
        refusal(&frames).expect_err("it is one, cut");
        refusal(b"").expect_err("it hung up");
        // Settings with one value, then the same once more without.
        let settings = [
            &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0][..],
            &NO_SETTINGS,
        ];
        refusal(&settings.concat()).expect("a greeting");
        refusal(&NO_SETTINGS).expect("a greeting");
    }
}
