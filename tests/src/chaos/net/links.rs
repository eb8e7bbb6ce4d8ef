//! All links between the machines, as the faults set them and the switch reads them.

use std::sync::{PoisonError, RwLock};

use super::link::Link;

/// A link for each direction between two machines, by the places of the two.
pub struct Links {
    links: RwLock<Vec<Vec<Link>>>,
}

impl Links {
    /// Links between so many machines that pass everything on.
    #[must_use]
    pub fn new(machines: usize) -> Self {
        Self {
            links: RwLock::new(vec![vec![Link::default(); machines]; machines]),
        }
    }

    /// The link from one machine to another.
    #[must_use]
    pub fn get(&self, from: usize, to: usize) -> Link {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links[from][to]
    }

    /// Sets one direction.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links[from][to] = link;
    }

    /// Sets both directions.
    pub fn set_both(&self, one: usize, other: usize, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// Makes every link whole.
    pub fn heal(&self) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        for link in links.iter_mut().flatten() {
            *link = Link::default();
        }
    }
}
