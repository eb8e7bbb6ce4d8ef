//! What becomes of a packet on the way from one machine to another.

use std::time::Duration;

/// One direction between two machines. The default passes everything on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Nothing comes through.
    pub cut: bool,
    /// How long a packet is on its way.
    pub delay: Duration,
    /// It may be so much longer.
    pub jitter: Duration,
    /// So many of a thousand packets are lost.
    pub loss: u32,
    /// So many of a thousand come twice.
    pub duplication: u32,
    /// So many of a thousand come later than those behind them.
    pub reordering: u32,
}

/// How much later a packet comes that is to be passed by others.
const PASSED_BY: Duration = Duration::from_millis(5);

/// One copy of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// From now until it is there.
    pub after: Duration,
    /// Whether it keeps its place behind those that were sent before it.
    pub in_order: bool,
}

impl Link {
    /// A link that nothing comes through.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// The copies of one packet that come through: none, one or two.
    pub fn copies(&self, random: &mut fastrand::Rng) -> impl Iterator<Item = Copy> + use<> {
        let lost = self.cut || hits(random, self.loss);
        let twice = hits(random, self.duplication);
        let count = match (lost, twice) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        let copies = [self.copy(random), self.copy(random)];
        copies.into_iter().take(count)
    }

    fn copy(&self, random: &mut fastrand::Rng) -> Copy {
        let jitter = self.jitter.mul_f64(random.f64());
        let late = hits(random, self.reordering);
        let behind = if late {
            PASSED_BY + self.jitter
        } else {
            Duration::ZERO
        };
        Copy {
            after: self.delay + jitter + behind,
            in_order: !late,
        }
    }
}

fn hits(random: &mut fastrand::Rng, of_thousand: u32) -> bool {
    of_thousand > 0 && random.u32(0..1_000) < of_thousand
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(link: Link) -> usize {
        let mut random = fastrand::Rng::with_seed(7);
        (0..10_000).map(|_| link.copies(&mut random).count()).sum()
    }

    #[test]
    fn packets_come_once_never_sometimes_or_twice_as_the_link_says() {
        assert_eq!(count(Link::default()), 10_000);
        assert_eq!(count(Link::cut()), 0);
        let lossy = Link {
            loss: 300,
            ..Link::default()
        };
        assert!((6_700..7_300).contains(&count(lossy)), "{}", count(lossy));
        let doubling = Link {
            duplication: 20,
            ..Link::default()
        };
        assert!((10_100..10_300).contains(&count(doubling)));
    }

    #[test]
    fn a_delay_has_its_jitter_and_a_packet_that_is_passed_by_comes_later() {
        let link = Link {
            delay: Duration::from_millis(75),
            jitter: Duration::from_millis(50),
            reordering: 500,
            ..Link::default()
        };
        let mut random = fastrand::Rng::with_seed(7);
        let copies: Vec<Copy> = (0..1_000).flat_map(|_| link.copies(&mut random)).collect();
        let (ordered, late): (Vec<Copy>, Vec<Copy>) =
            copies.into_iter().partition(|copy| copy.in_order);
        assert!(ordered.len() > 400 && late.len() > 400);
        let max = Duration::from_millis(125);
        assert!(
            ordered
                .iter()
                .all(|copy| (link.delay..=max).contains(&copy.after))
        );
        assert!(
            late.iter()
                .all(|copy| copy.after >= link.delay + link.jitter)
        );
    }
}
