//! Taking connections: how many, from whom, and how long they may take to open.
//!
//! What is over a bound is refused with the bound and its value, in this node's log and to the
//! other end where there is a way to tell it. Taking goes on whatever one connection does.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_rpc::certificate::Certificate;
use quorate_rpc::net::{TcpListener, TcpStream};
use quorate_rpc::tls::{Stream, refusal_frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::caller::Caller;
use super::connection::{Connection, Patience};
use super::unfinished::Unfinished;
use crate::tls::{Port, Tls};

/// Connections that have opened and wait to be served.
const OPENED: usize = 64;

/// Connections that are told why they are refused, at a time; more are closed without a word.
const TOLD_MAX: usize = 16;

/// How long telling may take.
const TELLING: Duration = Duration::from_secs(1);

/// After an error of accepting: when files have run out, they come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// At most one line of the log in this time for refused connections.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// First byte of a connection with TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Codes of HTTP/2 (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u8 = 0xb;
const INADEQUATE_SECURITY: u8 = 0xc;

/// What a port takes.
pub struct Edge {
    /// Who it is for, in words.
    pub what: &'static str,
    /// TLS, and as which port.
    pub tls: Option<(Arc<Tls>, Port)>,
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address; 0 for no bound of its own.
    pub per_address: usize,
    /// How long a connection may take to open, and to be silent.
    pub patience: Patience,
}

/// Connections that have opened.
pub type Opened = ReceiverStream<io::Result<Connection>>;

impl Edge {
    /// Takes connections from `listener` for as long as the future is polled; they come out of the
    /// stream.
    pub fn take(self, listener: TcpListener) -> (impl Future<Output = ()> + Send, Opened) {
        let (opened, stream) = mpsc::channel(OPENED);
        let taking = Taking {
            edge: self,
            places: Arc::default(),
            unfinished: Arc::default(),
            told: Arc::new(Semaphore::new(TOLD_MAX)),
            opened,
        };
        (Arc::new(taking).run(listener), ReceiverStream::new(stream))
    }
}

struct Taking {
    edge: Edge,
    places: Arc<Places>,
    unfinished: Arc<Unfinished>,
    told: Arc<Semaphore>,
    opened: mpsc::Sender<io::Result<Connection>>,
}

impl Taking {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        // Dropped with this future, and what opens with it.
        let mut opening = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        opening.spawn(Arc::clone(&self).open(stream, address));
                    }
                    Err(error) => {
                        refused(self.edge.what, None, &format!("cannot accept: {error}"));
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = opening.join_next() => {}
                () = self.opened.closed() => return,
            }
        }
    }

    async fn open(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let what = self.edge.what;
        let place = match self.places.take(address.ip(), &self.edge) {
            Ok(place) => place,
            Err(problem) => {
                refused(what, Some(address), &problem);
                return self.tell(stream, &problem).await;
            }
        };
        let first = self.edge.patience.first;
        match timeout(first, self.opened(stream, address)).await {
            Ok(Ok((stream, caller))) => {
                let (patience, unfinished) = (self.edge.patience, &self.unfinished);
                let connection = Connection::new(stream, caller, patience, place, unfinished);
                // Nobody takes it: the node stops.
                let _ = self.opened.send(Ok(connection)).await;
            }
            Ok(Err(error)) => refused(what, Some(address), &error.to_string()),
            Err(_) => {
                let ms = first.as_millis();
                let problem = format!("no handshake within {ms} ms (limits.handshake_ms)");
                refused(what, Some(address), &problem);
            }
        }
    }

    /// Opens a connection, with TLS if the port has it.
    async fn opened(
        &self,
        mut stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<(Stream, Caller)> {
        stream.set_nodelay(true)?;
        let mut caller = Caller {
            address: Some(address),
            certificate: None,
        };
        let Some((tls, port)) = &self.edge.tls else {
            return Ok((Stream::Plain(stream), caller));
        };
        if !begins_with_tls(&mut stream).await? {
            if tls.takes_plain() {
                return Ok((Stream::Plain(stream), caller));
            }
            let words = "this port takes connections with TLS only: use https:// and --cacert";
            say(stream, INADEQUATE_SECURITY, words).await;
            return Err(io::Error::other(
                "it speaks no TLS, and this port takes nothing else",
            ));
        }
        let stream = TlsAcceptor::from(tls.server(*port)).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        if let Some(shown) = shown.and_then(<[_]>::first) {
            let read = Certificate::parse(shown).map_err(io::Error::other)?;
            caller.certificate = Some(Arc::new(read.names));
        }
        if *port == Port::Clients
            && let Err(problem) = caller.principal()
        {
            say(stream, INADEQUATE_SECURITY, &problem).await;
            return Err(io::Error::other(problem));
        }
        Ok((Stream::Tls(Box::new(stream.into())), caller))
    }

    /// Tells a connection that is refused why, if that can be done.
    async fn tell(&self, mut stream: TcpStream, problem: &str) {
        let Ok(_telling) = self.told.try_acquire() else {
            return;
        };
        let told = async {
            match &self.edge.tls {
                Some((tls, port)) if begins_with_tls(&mut stream).await.unwrap_or(false) => {
                    let acceptor = TlsAcceptor::from(tls.server(*port));
                    if let Ok(stream) = acceptor.accept(stream).await {
                        say(stream, ENHANCE_YOUR_CALM, problem).await;
                    }
                }
                _ => say(stream, ENHANCE_YOUR_CALM, problem).await,
            }
        };
        let _ = timeout(TELLING, told).await;
    }
}

async fn begins_with_tls(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE])
}

/// Ends a connection of HTTP/2 with a reason in words, before anything was asked on it.
async fn say(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, code: u8, problem: &str) {
    let bytes = refusal_frames(code, problem);
    let said = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        // What comes is read away: closing over it would take the words back.
        let mut away = [0; 1_024];
        while stream.read(&mut away).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(TELLING, said).await;
}

/// Files that a node needs beside connections of clients: two databases, and connections of others.
const FILES_RESERVED: u64 = 1_024;

/// How many of the connections that the configuration allows this process can have open: each is a
/// file. Says so if that is fewer.
pub fn connections_within(wanted: usize) -> usize {
    use rustix::process::{Resource, getrlimit};
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    // With few files, half of them: a node that cannot open its tables stops.
    let room = files - FILES_RESERVED.min(files / 2);
    let possible = usize::try_from(room).unwrap_or(usize::MAX);
    if possible < wanted {
        tracing::warn!(
            limit = wanted,
            possible,
            nofile = files,
            "this process may open too few files for limits.connections; raise its limit \
             (LimitNOFILE, ulimit -n)"
        );
    }
    possible.min(wanted)
}

/// Places of open connections.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

impl Places {
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics while it changes the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, or the bound that forbids it.
    fn take(self: &Arc<Self>, address: IpAddr, edge: &Edge) -> Result<Place, String> {
        let mut taken = self.by_address();
        let all: usize = taken.values().sum();
        if all >= edge.connections {
            return Err(format!(
                "too many connections: limits.connections is {}, and {all} are open",
                edge.connections
            ));
        }
        let own = taken.entry(address).or_default();
        if edge.per_address > 0 && *own >= edge.per_address {
            return Err(format!(
                "too many connections from {address}: limits.connections_per_address is {}, and \
                 {own} are open",
                edge.per_address
            ));
        }
        *own += 1;
        Ok(Place {
            places: Arc::clone(self),
            address,
        })
    }
}

/// The place of one connection; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.by_address();
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Logs a refused connection, a line a second at most: whoever comes again and again must not fill
/// the log.
pub fn refused(what: &'static str, address: Option<SocketAddr>, problem: &str) {
    static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, quiet)) = last.as_mut()
        && at.elapsed() < LOG_PAUSE
    {
        *quiet += 1;
        return;
    }
    let quiet = last.map_or(0, |(_, quiet)| quiet);
    *last = Some((Instant::now(), 0));
    drop(last);
    let address = address.map(tracing::field::display);
    tracing::warn!(what, address, problem, quiet, "refused a connection");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(connections: usize, per_address: usize) -> Edge {
        Edge {
            what: "clients",
            tls: None,
            connections,
            per_address,
            patience: Patience {
                first: Duration::from_secs(1),
                idle: Duration::from_secs(1),
                plain: false,
            },
        }
    }

    #[test]
    fn a_place_over_a_bound_is_refused_with_it_and_comes_back() {
        let (places, edge) = (Arc::new(Places::default()), edge(3, 2));
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = places.take(one, &edge).expect("free");
        let _second = places.take(one, &edge).expect("free");
        let refused = places.take(one, &edge).expect_err("two from there");
        assert!(
            refused.contains("connections_per_address is 2"),
            "{refused}"
        );
        let _third = places.take(other, &edge).expect("free");
        let refused = places.take(other, &edge).expect_err("three in all");
        assert!(refused.contains("limits.connections is 3"), "{refused}");
        drop(first);
        places.take(other, &edge).expect("one has gone");
        assert_eq!(places.by_address().get(&other), Some(&1));
    }
}
