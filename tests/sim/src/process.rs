//! Clock and chance of this process are the simulation's.
//!
//! `std`, tokio, openraft and all that they stand on ask libc for the time and for random bytes:
//! hash maps for their seeds, tokio for the order of `select!`, openraft for its election timeouts,
//! `uuid` and `fastrand` for everything. The linker takes the two functions below for libc's, so
//! none of them needs to know of a simulation. Whatever still differs between two runs of one seed
//! is a bug, here or there.
//!
//! Only the thread that has called [`seed`] is concerned; all others get what the system gives.
//! One process runs one seed: libraries keep counters in statics.
#![allow(unsafe_code, reason = "two functions of libc are replaced")]

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tokio::runtime::{Handle, Id};

/// Seconds of the wall clock when a simulation begins.
const WALL_START: i64 = 1_800_000_000;

/// Seconds of the monotonic clock where there is no runtime that has one.
const MONOTONIC_START: i64 = 1_000;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    /// [`MONOTONIC_START`] as an instant.
    static FIRST: Cell<Option<Instant>> = const { Cell::new(None) };
    static SKEWS: RefCell<Vec<(Id, i64)>> = const { RefCell::new(Vec::new()) };
}

/// From here on this thread has the seed's chance, and a clock that stands still outside of nodes.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
    FIRST.set(Some(Instant::now()));
}

/// How many random numbers were taken, and what the next one is: two runs of one seed that differ
/// anywhere soon differ here.
pub fn fingerprint() -> (u64, u64) {
    (TAKEN.get(), STATE.get().unwrap_or_default())
}

/// The wall clock of the node that runs in this runtime is ahead by so many microseconds.
pub fn set_skew(runtime: Id, micros: i64) {
    SKEWS.with_borrow_mut(|skews| {
        skews.retain(|(id, _)| *id != runtime);
        skews.push((runtime, micros));
    });
}

fn next() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    TAKEN.set(TAKEN.get() + 1);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// # Safety
///
/// As of libc: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if STATE.get().is_none() {
        // SAFETY: passed on as it came.
        let taken = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(taken).unwrap_or(-1);
    }
    for at in 0..length {
        let byte = next().unwrap_or_default().to_le_bytes()[0];
        // SAFETY: `at` is below the length that the caller has named.
        unsafe { buffer.add(at).write(byte) };
    }
    isize::try_from(length).unwrap_or(-1)
}

/// # Safety
///
/// As of libc: `time` may be written to.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    if STATE.get().is_none() {
        // SAFETY: passed on as it came.
        let told = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return libc::c_int::try_from(told).unwrap_or(-1);
    }
    let told = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => wall(),
        _ => monotonic(),
    };
    // SAFETY: the caller gives a place for it.
    unsafe { time.write(told) };
    0
}

fn timespec(seconds: i64, nanos: u32) -> libc::timespec {
    libc::timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    }
}

fn wall() -> libc::timespec {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let skew = Handle::try_current().map_or(0, |handle| {
        let id = handle.id();
        SKEWS.with_borrow(|skews| {
            let of_node = skews.iter().find(|(runtime, _)| *runtime == id);
            of_node.map_or(0, |(_, micros)| *micros)
        })
    });
    let elapsed = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX / 2);
    let micros = elapsed + skew;
    let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    timespec(WALL_START + micros.div_euclid(1_000_000), nanos)
}

/// The instant of the node's own runtime, whose clock turmoil moves. A runtime that is being made
/// asks outside of any what its first instant is.
fn monotonic() -> libc::timespec {
    let (Ok(_), Some(first)) = (Handle::try_current(), FIRST.get()) else {
        return timespec(MONOTONIC_START, 0);
    };
    let now = tokio::time::Instant::now().into_std();
    let since = now.saturating_duration_since(first);
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    timespec(MONOTONIC_START + seconds, since.subsec_nanos())
}
