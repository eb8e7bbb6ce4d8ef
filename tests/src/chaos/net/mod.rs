//! A network of machines inside this program: every machine is a network namespace with a TUN
//! interface, and a switch in user space passes packets between them.
//!
//! No bridge, no firewall rule, no queueing discipline: many kernels have no `netem`, and what a
//! fault leaves behind in a kernel outlives a test that was killed. Here a fault is an entry in a
//! table, and everything is gone with the program.

mod link;
mod links;
mod machine;
mod switch;
mod tun;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

pub use link::Link;
pub use links::Links;
pub use machine::Machine;
pub use switch::Counts;
pub use tun::DEVICE;

use switch::Switch;

/// Machines, the switch between them, and the namespace of this program, where the clients are.
pub struct Network {
    /// Where nodes run, in order; machine 0 is [`address`]`(0)`.
    pub machines: Vec<Arc<Machine>>,
    /// What the switch does with packets. The last place is that of the clients.
    pub links: Arc<Links>,
    /// What the switch did with packets.
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    switch: Option<JoinHandle<Result<()>>>,
}

/// The address of a machine, or of the clients behind the last one.
#[must_use]
pub fn address(machine: usize) -> Ipv4Addr {
    let host = u8::try_from(machine + 1).expect("a network has few machines");
    Ipv4Addr::new(10, 77, 0, host)
}

/// Leaves the host's network for good: call it before the program has a second thread.
pub fn leave_host() -> Result<()> {
    tun::leave_network()
}

impl Network {
    /// Makes so many machines. The caller has left the host's network.
    pub fn start(machines: usize, seed: u64) -> Result<Self> {
        let own = tun::open(address(machines)).context("the clients' interface")?;
        let mut ports = Vec::new();
        let mut started = Vec::new();
        for place in 0..machines {
            let (machine, port) = Machine::start(address(place))
                .with_context(|| format!("machine {place} cannot be made"))?;
            started.push(Arc::new(machine));
            ports.push((address(place), port));
        }
        ports.push((address(machines), own));
        let links = Arc::new(Links::new(ports.len()));
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let switch = Switch::new(ports, Arc::clone(&links), Arc::clone(&counts), seed);
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("switch".to_owned());
        let switch = thread.spawn(move || switch.run(&told))?;
        Ok(Self {
            machines: started,
            links,
            counts,
            stop,
            switch: Some(switch),
        })
    }

    /// The clients' place among the links.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.machines.len()
    }

    /// Fails if the switch has ended by itself: nothing that was seen since is worth anything.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.switch.take_if(|switch| switch.is_finished());
        match ended.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result.and(Err(anyhow::anyhow!("the switch has ended"))),
            Some(Err(_)) => Err(anyhow::anyhow!("the switch has panicked")),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(switch) = self.switch.take() {
            let _ = switch.join();
        }
    }
}
