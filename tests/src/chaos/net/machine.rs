//! A thread in a network namespace of its own: what it starts is a process on that machine.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};

use super::tun;

type Started = io::Result<Child>;

/// A machine. It lives as long as the program, or until it is dropped: a process that asked to die
/// with the thread that started it goes with it.
pub struct Machine {
    jobs: Sender<(Command, Sender<Started>)>,
}

impl Machine {
    /// Makes the machine and its interface. The file is the switch's end of it.
    pub fn start(address: Ipv4Addr) -> Result<(Self, File)> {
        let (jobs, waiting) = channel();
        let (tell, told) = channel();
        let thread = std::thread::Builder::new().name(format!("machine {address}"));
        thread.spawn(move || {
            let port = tun::leave_network().and_then(|()| tun::open(address));
            let made = port.is_ok();
            if tell.send(port).is_ok() && made {
                serve(&waiting);
            }
        })?;
        let port = told.recv().context("the machine's thread has ended")??;
        Ok((Self { jobs }, port))
    }

    /// Starts a process on the machine.
    pub fn spawn(&self, command: Command) -> Started {
        let gone = || io::Error::other("the machine's thread has ended");
        let (tell, told) = channel();
        self.jobs.send((command, tell)).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }
}

fn serve(waiting: &Receiver<(Command, Sender<Started>)>) {
    while let Ok((mut command, tell)) = waiting.recv() {
        // Who asked may have given up; the child is killed by whoever has it.
        let _ = tell.send(command.spawn());
    }
}
