//! Chance for the harness itself: faults and what clients do.

/// Numbers that are the seed's alone; the same generator as the disks have.
pub use quorate_node::storage::disk::simulated::Random;

/// A generator of its own for each use, so that one that takes more moves no other.
#[must_use]
pub fn stream(seed: u64, of: &str) -> Random {
    let mut mixed = seed;
    for byte in of.bytes() {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Random::new(mixed)
}
