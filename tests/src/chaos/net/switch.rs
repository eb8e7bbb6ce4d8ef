//! Passes packets from machine to machine, each as the link between the two says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::links::Links;

/// The largest packet of an interface with the usual MTU, and more.
const PACKET_BYTES_MAX: usize = 4_096;

/// Packets that are on their way at a time. More are dropped, as a switch with a full buffer does.
const PACKETS_MAX: usize = 100_000;

/// Packets that are read from one interface before the next one has its turn.
const BURST: usize = 64;

/// How long the switch sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// What the switch has done with packets.
#[derive(Debug, Default)]
pub struct Counts {
    /// Passed on, copies included.
    pub passed: AtomicU64,
    /// Dropped by a link that is cut or loses packets, or for want of room.
    pub dropped: AtomicU64,
    /// Passed on twice.
    pub doubled: AtomicU64,
    /// Passed on later than those behind them.
    pub reordered: AtomicU64,
    /// Held back for a time.
    pub delayed: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The earliest comes out first; what is due at one instant in the order in which it came in.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    number: u64,
    to: usize,
    packet: Vec<u8>,
}

/// The switch: one thread's work.
pub struct Switch {
    ports: Vec<(Ipv4Addr, File)>,
    links: Arc<Links>,
    counts: Arc<Counts>,
    random: fastrand::Rng,
    waiting: BinaryHeap<Reverse<Due>>,
    /// When the last packet of each direction is there that keeps its place.
    last: Vec<Vec<Instant>>,
    number: u64,
}

impl Switch {
    /// A switch between these interfaces.
    #[must_use]
    pub fn new(
        ports: Vec<(Ipv4Addr, File)>,
        links: Arc<Links>,
        counts: Arc<Counts>,
        seed: u64,
    ) -> Self {
        let last = vec![vec![Instant::now(); ports.len()]; ports.len()];
        Self {
            ports,
            links,
            counts,
            random: fastrand::Rng::with_seed(seed),
            waiting: BinaryHeap::new(),
            last,
            number: 0,
        }
    }

    /// Passes packets on until it is told to stop.
    pub fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            for from in self.wait()? {
                self.take(from)?;
            }
            self.deliver()?;
        }
        Ok(())
    }

    /// Waits until a packet came in or one is due, and answers which interfaces have some.
    fn wait(&self) -> Result<Vec<usize>> {
        let next = self
            .waiting
            .peek()
            .map(|Reverse(due)| due.at.saturating_duration_since(Instant::now()));
        let nap = Timespec::try_from(next.unwrap_or(NAP).min(NAP))?;
        let files = self.ports.iter().map(|(_, file)| file);
        let mut fds: Vec<PollFd<'_>> = files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.iter().enumerate();
        let ready = ready.filter(|(_, fd)| fd.revents().contains(PollFlags::IN));
        Ok(ready.map(|(port, _)| port).collect())
    }

    fn take(&mut self, from: usize) -> Result<()> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        for _ in 0..BURST {
            let bytes = match (&self.ports[from].1).read(&mut buffer) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            ensure!(bytes > 0, "interface {from} is gone");
            let destination = destination(&buffer[..bytes]);
            let to = self
                .ports
                .iter()
                .position(|(it, _)| Some(*it) == destination);
            if let Some(to) = to {
                self.send(from, to, &buffer[..bytes])?;
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, packet: &[u8]) -> Result<()> {
        let link = self.links.get(from, to);
        let now = Instant::now();
        let mut copies = 0;
        for copy in link.copies(&mut self.random) {
            copies += 1;
            if copy.after.is_zero() && self.last[from][to] <= now {
                self.pass(to, packet)?;
                continue;
            }
            let mut at = now + copy.after;
            if copy.in_order {
                at = at.max(self.last[from][to]);
                self.last[from][to] = at;
            } else {
                Counts::add(&self.counts.reordered);
            }
            self.hold(at, to, packet);
        }
        match copies {
            0 => Counts::add(&self.counts.dropped),
            2.. => Counts::add(&self.counts.doubled),
            _ => {}
        }
        Ok(())
    }

    fn hold(&mut self, at: Instant, to: usize, packet: &[u8]) {
        if self.waiting.len() >= PACKETS_MAX {
            return Counts::add(&self.counts.dropped);
        }
        Counts::add(&self.counts.delayed);
        self.number += 1;
        self.waiting.push(Reverse(Due {
            at,
            number: self.number,
            to,
            packet: packet.to_vec(),
        }));
    }

    fn deliver(&mut self) -> Result<()> {
        let now = Instant::now();
        while self
            .waiting
            .peek()
            .is_some_and(|Reverse(due)| due.at <= now)
        {
            let Some(Reverse(due)) = self.waiting.pop() else {
                break;
            };
            self.pass(due.to, &due.packet)?;
        }
        Ok(())
    }

    fn pass(&self, to: usize, packet: &[u8]) -> Result<()> {
        match (&self.ports[to].1).write(packet) {
            Ok(_) => Counts::add(&self.counts.passed),
            // The receiver's queue is full: dropped, as anywhere.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Counts::add(&self.counts.dropped);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Where an IPv4 packet goes. The kernel also tries IPv6, which nobody answers.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| Ipv4Addr::from(bytes))
}
