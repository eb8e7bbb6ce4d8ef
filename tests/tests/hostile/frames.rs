//! HTTP/2 and gRPC that are none, and floods of frames.

use anyhow::{Context, Result};
use fastrand::Rng;
use futures::StreamExt;
use quorate_tests::long_form;

use super::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HELLO, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, begin, call, frame, frame_of_length, header,
};
use super::siege::{Siege, besieged, options, say};

const EXECUTE: &str = "/quorate.v1.Coordination/Execute";
const APPEND: &str = "/quorate.v1.Peer/Append";

/// Frames that break the rules of HTTP/2, each on a connection of its own.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let window = |by: u32, stream| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let most = (1 << 24) - 1;
    vec![
        ("data on no stream", frame(DATA, 0, 0, b"x")),
        ("data on a stream that is not open", frame(DATA, 0, 7, b"x")),
        (
            "a frame longer than any may be",
            frame_of_length(most, DATA, 0, 1, &[0; 70_000]),
        ),
        (
            "a frame that ends early",
            frame_of_length(16_000, HEADERS, 4, 1, &[0; 100]),
        ),
        ("headers on a stream of the server", begin(2, EXECUTE)),
        (
            "headers of no compression",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 300]),
        ),
        (
            "an index of no header",
            frame(HEADERS, END_HEADERS, 1, &[0xfe]),
        ),
        (
            "padding longer than the frame",
            frame(HEADERS, END_HEADERS | 8, 1, &[200, 0]),
        ),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "acknowledged settings with content",
            frame(SETTINGS, 1, 0, &[0; 6]),
        ),
        (
            "a window that is too large",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "frames that are too small",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        ("a window opened by nothing", window(0, 0)),
        (
            "a window opened too far",
            [window(0x7fff_ffff, 0), window(0x7fff_ffff, 0)].concat(),
        ),
        (
            "a promise by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        (
            "the reset of a stream that is not open",
            frame(RST_STREAM, 0, 9, &[0; 4]),
        ),
        (
            "a stream that waits for itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
        ),
        ("a ping of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("a farewell of a wrong length", frame(GOAWAY, 0, 0, &[0; 3])),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
        ),
        (
            "kinds that are none",
            (10..=255)
                .flat_map(|kind| frame(kind, 0xff, 0, &[1]))
                .collect(),
        ),
    ]
}

/// Much of what is allowed once.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let endless = || {
        let piece = header("x-more", &"y".repeat(4_000));
        let next = frame(CONTINUATION, 0, 1, &piece);
        [
            frame(HEADERS, 0, 1, &call(EXECUTE, &[])),
            next.repeat(2_000),
        ]
        .concat()
    };
    let resets = || {
        let streams = (0..5_000_u32).map(|number| 2 * number + 1);
        let one = |stream| {
            [
                begin(stream, EXECUTE),
                frame(RST_STREAM, 0, stream, &[0; 4]),
            ]
        };
        streams.flat_map(one).flatten().collect()
    };
    // One header that the node keeps, and is asked to repeat twelve thousand times.
    let mut kept = header("k", &"v".repeat(3_900));
    kept[0] = 0x40;
    let expanded = [call(EXECUTE, &[]), kept, vec![0xbe; 12_000]].concat();
    vec![
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(20_000)),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(20_000)),
        (
            "priorities",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]).repeat(20_000),
        ),
        (
            "empty data",
            [begin(1, EXECUTE), frame(DATA, 0, 1, &[]).repeat(20_000)].concat(),
        ),
        ("headers without end", endless()),
        ("streams that are reset at once", resets()),
        (
            "headers that grow when they are read",
            frame(HEADERS, END_HEADERS, 1, &expanded),
        ),
        ("a long list of headers", {
            let long = [call(EXECUTE, &[]), header("x-long", &"z".repeat(16_000))].concat();
            frame(HEADERS, END_HEADERS, 1, &long).repeat(4)
        }),
    ]
}

/// Calls that are HTTP/2 and no gRPC.
fn broken_calls() -> Vec<(&'static str, Vec<u8>)> {
    let message = |head: &[u8]| [begin(1, EXECUTE), frame(DATA, END_STREAM, 1, head)].concat();
    let only = |fields: &[(&str, &str)]| {
        let block: Vec<u8> = fields.iter().flat_map(|(n, v)| header(n, v)).collect();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    let with = |name, value| {
        let block = call(EXECUTE, &[(name, value)]);
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    vec![
        (
            "a message of four gigabytes",
            message(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        ),
        (
            "a message compressed by nothing",
            message(&[1, 0, 0, 0, 1, 0]),
        ),
        (
            "a message of a kind that is none",
            message(&[9, 0, 0, 0, 1, 0]),
        ),
        ("a message that ends early", message(&[0, 0, 0, 1, 0, 1])),
        ("half of a message's head", message(&[0, 0])),
        ("no headers", only(&[])),
        ("no path", only(&[(":method", "POST"), (":scheme", "http")])),
        (
            "a path that is none",
            only(&[(":method", "POST"), (":scheme", "http"), (":path", "x")]),
        ),
        ("headers in capitals", with("X-Capital", "x")),
        ("a header of HTTP/1", with("connection", "upgrade")),
        ("a timeout that is none", with("grpc-timeout", "soon")),
        ("a compression that is none", with("grpc-encoding", "magic")),
        (
            "a token that is none",
            with("authorization", "Bearer \u{7f}\u{1}"),
        ),
        ("another identity", with("quorate-cluster-id-bin", "!!!!")),
        (
            "another content",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", APPEND),
                ("content-type", "text/html"),
            ]),
        ),
    ]
}

async fn all(siege: &Siege<'_>, attacks: &[(&'static str, Vec<u8>)]) -> Result<()> {
    for address in siege.grpc() {
        for (what, bytes) in attacks {
            let bytes = [HELLO, bytes].concat();
            say(address, &bytes).await.context(*what)?;
        }
    }
    siege.served().await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_and_calls_that_are_none_end_their_connection_and_nothing_else() -> Result<()> {
    besieged(options(|_| {}), 32, async |siege| {
        all(siege, &broken_frames()).await?;
        all(siege, &broken_calls()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_cost_little_memory() -> Result<()> {
    besieged(options(|_| {}), 48, async |siege| {
        all(siege, &floods()).await
    })
    .await
}

/// Frames of any kind, with any content, in any order.
fn random_frames(seed: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(seed);
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..60) {
        let most = [6, 40, 5_000][random.usize(0..3)];
        let mut payload = vec![0; random.usize(0..most)];
        random.fill(&mut payload);
        let (kind, flags, stream) = (random.u8(0..12), random.u8(..), random.u32(0..8));
        match random.u8(0..10) {
            0 => bytes.extend(payload),
            1 => bytes.extend(begin(2 * stream + 1, [EXECUTE, APPEND][random.usize(0..2)])),
            2 => {
                let length = random.usize(0..1 << 24);
                bytes.extend(frame_of_length(length, kind, flags, stream, &payload));
            }
            _ => bytes.extend(frame(kind, flags, stream, &payload)),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_in_any_order_do_no_harm() -> Result<()> {
    let seed = long_form("QUORATE_FRAMES_SEED", fastrand::usize(..1_000_000_000)) as u64;
    println!("QUORATE_FRAMES_SEED={seed}");
    let rounds = long_form("QUORATE_FRAMES", 200) as u64;
    besieged(options(|_| {}), 48, async |siege| {
        let says = (0..rounds).map(|round| async move {
            let bytes = [HELLO, &random_frames(seed + round)].concat();
            for address in siege.grpc() {
                say(address, &bytes)
                    .await
                    .with_context(|| format!("round {round}"))?;
            }
            anyhow::Ok(())
        });
        let mut says = futures::stream::iter(says).buffer_unordered(16);
        while let Some(said) = says.next().await {
            said?;
        }
        Ok(())
    })
    .await
}
