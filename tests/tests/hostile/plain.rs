//! HTTP/1 that is none, and heads that come a byte at a time, on the port of probes.

use anyhow::{Context, Result, ensure};
use quorate_tests::http::get;
use quorate_tests::wait::{PATIENCE, until};
use tokio::task::JoinSet;

use super::h2::HELLO;
use super::siege::{besieged, dribble, open, options, say};

/// More than the port takes.
const SLOW: usize = 300;

fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let head = "GET /livez HTTP/1.1\r\nhost: n\r\n";
    let post = "POST /livez HTTP/1.1\r\nhost: n\r\n";
    let text = |text: String| text.into_bytes();
    vec![
        ("nothing", Vec::new()),
        ("zeroes", vec![0; 10_000]),
        ("HTTP/2", HELLO.to_vec()),
        ("a line without end", vec![b'a'; 2 << 20]),
        (
            "a path without end",
            text(format!("GET /{} HTTP/1.1\r\n", "a".repeat(2 << 20))),
        ),
        (
            "a header without end",
            text(format!("{head}x: {}\r\n\r\n", "a".repeat(2 << 20))),
        ),
        (
            "thousands of headers",
            text(format!("{head}{}\r\n", "x: y\r\n".repeat(20_000))),
        ),
        ("a head that stops", text(format!("{head}x: "))),
        (
            "no such method",
            text("BREW /livez HTTP/1.1\r\nhost: n\r\n\r\n".to_owned()),
        ),
        (
            "no such version",
            text("GET /livez HTTP/9.9\r\n\r\n".to_owned()),
        ),
        (
            "a negative length",
            text(format!("{post}content-length: -1\r\n\r\n")),
        ),
        (
            "two lengths",
            text(format!(
                "{post}content-length: 1\r\ncontent-length: 9\r\n\r\nx"
            )),
        ),
        (
            "a body that stops",
            text(format!("{post}content-length: 1000000000\r\n\r\nx")),
        ),
        (
            "chunks that are none",
            text(format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n")),
        ),
        (
            "a thousand at once",
            text(format!("{head}\r\n").repeat(1_000)),
        ),
        (
            "paths that lead out",
            text("GET /../../etc/passwd HTTP/1.0\r\n\r\n".to_owned()),
        ),
        (
            "escapes that are none",
            text("GET /%zz%00?%ff HTTP/1.0\r\n\r\n".to_owned()),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_ends_its_connection_and_nothing_else() -> Result<()> {
    besieged(options(|_| {}), 32, async |siege| {
        for (what, bytes) in broken() {
            say(siege.http(), &bytes).await.context(what)?;
            let (code, _) = get(siege.http(), "/livez").await.context(what)?;
            ensure!(code == 200, "{what}: {code}");
        }
        Ok(())
    })
    .await
}

/// Who asks a byte at a time takes no place for long from a probe, on whose answer it depends
/// whether a supervisor lets the node live.
#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_do_not_keep_probes_away() -> Result<()> {
    let options = options(|config| config.limits.handshake_ms = 1_500);
    besieged(options, 32, async |siege| {
        let mut slow = JoinSet::new();
        for _ in 0..SLOW {
            let stream = open(siege.http(), b"GET /livez HTTP/1.1\r\nx: ").await?;
            slow.spawn(dribble(stream));
        }
        until("a probe to be answered", PATIENCE, async || {
            let (code, _) = get(siege.http(), "/livez").await?;
            Ok((code == 200).then_some(()))
        })
        .await?;
        // Not one of them is left: each was cut, or refused at once.
        while slow.join_next().await.is_some() {}
        Ok(())
    })
    .await
}
