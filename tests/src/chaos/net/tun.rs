//! A network interface whose packets are read and written by this program, in a network namespace
//! that only the calling thread, and what it starts, is in.
//!
//! The only unsafe code of the crate. Three requests of `ioctl` and one `unshare` do not need a
//! crate that knows ten systems; what is left behind is nothing: interface and namespace are gone
//! when the last process in them has ended.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where interfaces are asked for.
pub const DEVICE: &str = "/dev/net/tun";

const TUNSETIFF: Opcode = 0x4004_54ca;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;

const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
const IFF_UP: u16 = 0x0001;
const IFF_RUNNING: u16 = 0x0040;
const AF_INET: u16 = 2;

const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// The kernel's `ifreq`: sixteen bytes of name, and what is asked.
struct Request([u8; 40]);

impl Request {
    fn of(interface: &str) -> Self {
        let mut bytes = [0; 40];
        bytes[..interface.len()].copy_from_slice(interface.as_bytes());
        Self(bytes)
    }

    fn flags(mut self, flags: u16) -> Self {
        self.0[16..18].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// A `sockaddr_in`: the family, no port, the address.
    fn address(mut self, address: Ipv4Addr) -> Self {
        self.0[16..18].copy_from_slice(&AF_INET.to_ne_bytes());
        self.0[20..24].copy_from_slice(&address.octets());
        self
    }

    #[allow(unsafe_code, reason = "the kernel is asked; there is no safe wrapper")]
    fn ask<const WHAT: Opcode>(mut self, fd: impl AsFd) -> Result<()> {
        // SAFETY: each of the opcodes above takes a pointer to an `ifreq`, reads and writes no more
        // than its 40 bytes, and keeps nothing of it.
        unsafe { ioctl(fd, Updater::<WHAT, [u8; 40]>::new(&mut self.0)) }?;
        Ok(())
    }
}

/// Puts the calling thread into a network namespace of its own, which has nothing but a loopback
/// interface that is down. What the thread starts from now on is in it as well.
#[allow(
    unsafe_code,
    reason = "rustix marks unshare so, for flags that are not used here"
)]
pub fn leave_network() -> Result<()> {
    // SAFETY: the flag that is dangerous is FILES; descriptors stay shared here.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .context("no network namespace of its own (unshare)")
}

/// Makes an interface with this address in the namespace of the calling thread, and brings it and
/// loopback up. Reads and writes of the file are packets, and never wait.
pub fn open(address: Ipv4Addr) -> Result<File> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = device.with_context(|| format!("cannot open {DEVICE}"))?;
    let interface = "chaos0";
    Request::of(interface)
        .flags(IFF_TUN | IFF_NO_PI)
        .ask::<TUNSETIFF>(&device)
        .context("no TUN interface")?;
    let any: OwnedFd = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Request::of(interface)
        .address(address)
        .ask::<SIOCSIFADDR>(&any)?;
    Request::of(interface)
        .address(NETMASK)
        .ask::<SIOCSIFNETMASK>(&any)?;
    for name in [interface, "lo"] {
        Request::of(name)
            .flags(IFF_UP | IFF_RUNNING)
            .ask::<SIOCSIFFLAGS>(&any)
            .with_context(|| format!("cannot bring {name} up"))?;
    }
    fcntl_setfl(&device, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok(device)
}
