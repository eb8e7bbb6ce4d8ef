//! What the plugin granted and has not seen the end of: what `cleanup` has to free.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use quorate_client::Hold;
use quorate_client::statemachine::Name;

/// Holds of one plugin: about 200 bytes each with an ordinary key, so 20 MB.
pub(crate) const HOLDS_MAX: usize = 100_000;

/// A hold is still remembered so long after its TTL: without a quorum the cluster's time stands
/// still, so that it may end later than this machine's clock says.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Looked through at the earliest when there are so many.
const LOOK_MIN: usize = 1_024;

/// Holds by acquisition.
#[derive(Debug)]
pub(crate) struct Holds {
    live: HashMap<[u8; 16], Live>,
    /// How many there are when they are next looked through: twice as many as were left then, so
    /// that a grant pays for two looks on average.
    look_at: usize,
}

#[derive(Debug)]
struct Live {
    key: Name,
    /// When its TTL is over by this machine's clock.
    until: Instant,
}

impl Holds {
    pub(crate) fn new() -> Self {
        Self {
            live: HashMap::new(),
            look_at: LOOK_MIN,
        }
    }

    /// Whether there is room for one more. Forgets holds that ended by themselves.
    pub(crate) fn make_room(&mut self, now: Instant) -> Result<(), String> {
        if self.live.len() < self.look_at {
            return Ok(());
        }
        self.live.retain(|_, hold| now < hold.until + REMEMBERED);
        let left = self.live.len();
        self.look_at = (left * 2).clamp(LOOK_MIN, HOLDS_MAX);
        if left < HOLDS_MAX {
            return Ok(());
        }
        Err(format!(
            "holds of this plugin: limit {HOLDS_MAX}, actual {left}; release what is done with, or \
             use shorter TTLs"
        ))
    }

    /// Remembers a hold whose TTL began at `since` or later.
    pub(crate) fn add(&mut self, hold: Hold, since: Instant) {
        let until = since + hold.ttl;
        let key = hold.key;
        self.live.insert(hold.id, Live { key, until });
    }

    /// Notes that a hold's TTL began anew at `since` or later.
    pub(crate) fn renewed(&mut self, id: [u8; 16], since: Instant, ttl: Duration) {
        if let Some(hold) = self.live.get_mut(&id) {
            hold.until = since + ttl;
        }
    }

    /// Forgets a hold that is over.
    pub(crate) fn remove(&mut self, id: [u8; 16]) {
        self.live.remove(&id);
    }

    /// Everything that is remembered.
    pub(crate) fn all(&self) -> Vec<(Name, [u8; 16])> {
        let live = self.live.iter();
        live.map(|(id, hold)| (hold.key.clone(), *id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(number: usize, ttl: Duration) -> Hold {
        Hold {
            key: Name::parse("key", "k").expect("a valid name"),
            id: (number as u128).to_be_bytes(),
            fencing_token: 1,
            ttl,
        }
    }

    #[test]
    fn what_is_released_or_long_over_is_forgotten() {
        let (mut holds, now) = (Holds::new(), Instant::now());
        for number in 0..LOOK_MIN {
            holds.add(hold(number, Duration::from_secs(1)), now);
        }
        holds.remove(hold(0, Duration::ZERO).id);
        assert_eq!(holds.all().len(), LOOK_MIN - 1);

        holds.add(hold(0, Duration::from_secs(3_600)), now);
        holds.renewed(hold(1, Duration::ZERO).id, now, Duration::from_secs(3_600));
        let later = now + Duration::from_secs(1) + REMEMBERED;
        holds.make_room(later).expect("room");
        assert_eq!(
            holds.all().len(),
            2,
            "one was granted and one renewed for an hour"
        );
    }

    #[test]
    fn more_live_holds_than_the_limit_are_refused_with_both_numbers() {
        let (mut holds, now) = (Holds::new(), Instant::now());
        for number in 0..HOLDS_MAX {
            holds.make_room(now).expect("room");
            holds.add(hold(number, Duration::from_secs(10)), now);
        }
        let error = holds.make_room(now).expect_err("no room");
        assert!(error.contains("limit 100000, actual 100000"), "{error}");
        let later = now + Duration::from_secs(10) + REMEMBERED;
        holds.make_room(later).expect("room again");
    }
}
