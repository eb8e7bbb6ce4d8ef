//! The web console: a page on the HTTP port that shows, live, what the cluster holds.
//!
//! It reads, and changes something only for an administrator while access is controlled. While
//! access is not, nothing guards what it shows, so it is there only on a loopback listener unless
//! the configuration says otherwise. It answers only to names that are this node's own, so that a
//! page from elsewhere cannot read it through a browser on this machine (DNS rebinding). The page
//! is in the program: no build, no internet.

mod act;
mod detail;
mod live;
mod look;
mod reader;
mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use self::reader::Reader;
use super::edge;
use crate::config::Config;
use crate::config::Console as Switch;
use crate::shared::Shared;

/// Pages that are shown live at a time: each costs a few reads 2.5 times a second.
const VIEWERS_MAX: usize = 16;

/// Length of what a page asks to be done: names are shorter.
const ACT_BYTES_MAX: usize = 16 * 1024;

const PAGE: &str = include_str!("assets/console.html");
const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");

/// Nothing but what this node serves; no frames, no forms, no code in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What the console's answers are made of.
#[derive(Clone)]
struct Console {
    shared: Arc<Shared>,
    viewers: Arc<Semaphore>,
}

/// The console's routes, or the word that it is off.
pub fn router(shared: Arc<Shared>) -> Router {
    if !is_on(shared.config()) {
        return Router::new()
            .route("/console", get(off))
            .route("/console/", get(off));
    }
    let guarded = Arc::clone(&shared);
    let console = Console {
        shared,
        viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
    };
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console/") }))
        .route(
            "/console",
            get(|| async { Redirect::temporary("/console/") }),
        )
        .route(
            "/console/",
            get(|| async { asset("text/html; charset=utf-8", PAGE) }),
        )
        .route(
            "/console/console.css",
            get(|| async { asset("text/css", STYLE) }),
        )
        .route(
            "/console/console.js",
            get(|| async { asset("text/javascript", SCRIPT) }),
        )
        .route("/console/live", get(live::live))
        .route("/console/key", get(detail::key))
        .route("/console/process", get(detail::process))
        .route("/console/queue", get(detail::queue))
        .route(
            "/console/act",
            post(act::act).layer(DefaultBodyLimit::max(ACT_BYTES_MAX)),
        )
        .with_state(console)
        .layer(middleware::from_fn_with_state(guarded, guard))
}

/// On if it was asked for; else on where only this machine reaches it.
fn is_on(config: &Config) -> bool {
    match config.http.console {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => is_loopback(host_of(&config.listen.http)),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The host of `host:port`, without the brackets of IPv6.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn off() -> impl IntoResponse {
    let advice = "The console is off: it shows the names of keys to whoever reaches this port. It \
                  is on where listen.http is on loopback, and with http.console = \"on\".\n";
    (StatusCode::NOT_FOUND, advice)
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let listen = &shared.config().listen;
    if !is_ours(host, [&listen.http, &listen.advertise_http]) {
        let problem = format!(
            "This node is not {host:?}: ask for it by address, as localhost, or by the host in \
             listen.http or listen.advertise_http.\n"
        );
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    let shown = request.headers().clone();
    match Reader::admit(&shared, &shown).await {
        Ok(reader) => request.extensions_mut().insert(reader),
        Err(error) => {
            // A browser shows nothing at first, and is asked for a token.
            if shown.contains_key(header::AUTHORIZATION) {
                edge::refused("probes", None, &error.to_string());
            }
            return reader::refused(&error);
        }
    };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, axum::http::HeaderValue::from_static(value));
    }
    response
}

/// Whether a Host header names this node. An address always does: a name of somebody else's that
/// leads here is what is kept out.
fn is_ours(host: &str, own: [&str; 2]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = |own: &&str| !own.is_empty() && host.eq_ignore_ascii_case(host_of(own));
    host.parse::<IpAddr>().is_ok() || host == "localhost" || own.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_itself_it_is_on_where_only_this_machine_reaches_it() {
        let mut config = Config::default();
        for (address, on) in [
            ("127.0.0.1:7402", true),
            ("[::1]:7402", true),
            ("localhost:7402", true),
            ("0.0.0.0:7402", false),
            ("[::]:7402", false),
            ("10.0.0.1:7402", false),
            ("node-1:7402", false),
        ] {
            config.listen.http = address.to_owned();
            config.http.console = Switch::Auto;
            assert_eq!(is_on(&config), on, "{address}");
            config.http.console = Switch::On;
            assert!(is_on(&config), "{address}");
            config.http.console = Switch::Off;
            assert!(!is_on(&config), "{address}");
        }
    }

    #[test]
    fn a_name_that_is_not_this_nodes_is_kept_out() {
        let own = ["0.0.0.0:7402", "node-1.example:7402"];
        for host in [
            "127.0.0.1:7402",
            "[::1]:7402",
            "localhost:1",
            "10.1.2.3",
            "Node-1.example",
        ] {
            assert!(is_ours(host, own), "{host}");
        }
        for host in [
            "",
            "evil.example:7402",
            "localhost.evil.example",
            "node-1.example.evil",
        ] {
            assert!(!is_ours(host, own), "{host}");
        }
        assert!(!is_ours("evil.example", ["127.0.0.1:7402", ""]));
    }
}
