//! The tables of `quorate top`: what the lists of the command line show, asked again and again.

use quorate_client::Client;

use crate::args::{Global, ReadConsistency};
use crate::commands::status::MEMBER_TIMEOUT;
use crate::commands::{lease, lock, process, queue};
use crate::connect;
use crate::exit::Failure;
use crate::output::{Row, printable};

/// Things of one kind that are shown; who looks for others gives a prefix.
pub const ENTRIES_MAX: u64 = 200;

/// What there is a list of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Live leases; of one, its grants that are over.
    Leases,
    /// Locks that are held or waited for; of one, its waiters.
    Locks,
    /// Processes; of one, its last events.
    Processes,
    /// Queues; of one, its items.
    Queues,
}

impl Table {
    /// All of them, as they stand beside each other.
    pub const ALL: [Self; 4] = [Self::Leases, Self::Locks, Self::Processes, Self::Queues];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Locks => "locks",
            Self::Processes => "processes",
            Self::Queues => "queues",
        }
    }
}

/// What a person looks at: a list, or one of what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The list.
    pub table: Table,
    /// The one that was opened.
    pub of: Option<String>,
}

impl Asked {
    /// A list.
    pub fn all(table: Table) -> Self {
        Self { table, of: None }
    }

    /// What it is called above its rows.
    pub fn title(&self) -> String {
        let Some(of) = &self.of else {
            return self.table.title().to_owned();
        };
        let what = match self.table {
            Table::Leases => "grants that are over, of lease",
            Table::Locks => "waiters, first in line first, of lock",
            Table::Processes => "last events of process",
            Table::Queues => "items of queue",
        };
        format!("{what} {}", printable(of))
    }
}

/// A row of a list.
pub struct Entry {
    /// By which it is opened.
    pub name: String,
    /// A text a column.
    pub cells: Vec<String>,
}

/// Rows as they were at one moment.
pub struct Listing {
    /// Titles of the columns.
    pub header: &'static [&'static str],
    /// The rows.
    pub entries: Vec<Entry>,
    /// There are more of them.
    pub more: bool,
    /// Whether it is what the cluster has, and not only what some member has.
    pub confirmed: bool,
}

impl Listing {
    fn of<R: Row>(rows: &[R]) -> Self {
        let shown = usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX);
        let entry = |row: &R| Entry {
            name: row.name(),
            cells: row.cells().iter().map(|cell| printable(cell)).collect(),
        };
        Self {
            header: R::HEADER,
            entries: rows.iter().take(shown).map(entry).collect(),
            more: rows.len() > shown,
            confirmed: true,
        }
    }
}

/// Where lists are from.
pub struct Source {
    client: Client,
    /// Asks any member, for what it has.
    any: Client,
    confirms: bool,
    prefix: String,
}

impl Source {
    /// Of the cluster that the flags name; only what starts with `prefix`.
    pub fn new(global: &Global, prefix: &str) -> Result<Self, Failure> {
        let client = |consistency| {
            let global = Global {
                consistency,
                timeout: Some(global.timeout.unwrap_or(MEMBER_TIMEOUT)),
                ..global.clone()
            };
            connect::client(&global)
        };
        Ok(Self {
            client: client(global.consistency)?,
            any: client(ReadConsistency::Stale)?,
            confirms: !matches!(global.consistency, ReadConsistency::Stale),
            prefix: prefix.to_owned(),
        })
    }

    /// The list as it is now; while there is no leader, as the member has it that answers.
    pub async fn ask(&self, asked: &Asked) -> Result<Listing, Failure> {
        let (listing, confirmed) = match self.ask_of(&self.client, asked).await {
            Ok(listing) => (listing, self.confirms),
            Err(_) => (self.ask_of(&self.any, asked).await?, false),
        };
        Ok(Listing {
            confirmed,
            ..listing
        })
    }

    async fn ask_of(&self, client: &Client, asked: &Asked) -> Result<Listing, Failure> {
        // One more than is shown tells whether there are more.
        let (prefix, limit) = (self.prefix.as_str(), ENTRIES_MAX + 1);
        Ok(match (asked.table, asked.of.as_deref()) {
            (Table::Leases, None) => Listing::of(&lease::listed(client, prefix, limit).await?),
            (Table::Leases, Some(key)) => Listing::of(&lease::ended(client, key).await?),
            (Table::Locks, None) => Listing::of(&lock::listed(client, prefix, limit).await?),
            (Table::Locks, Some(key)) => Listing::of(&lock::waiting(client, key, limit).await?),
            (Table::Processes, None) => {
                Listing::of(&process::listed(client, prefix, None, limit).await?)
            }
            (Table::Processes, Some(id)) => {
                Listing::of(&process::last_events(client, id, ENTRIES_MAX).await?)
            }
            (Table::Queues, None) => Listing::of(&queue::listed(client, prefix, limit).await?),
            (Table::Queues, Some(name)) => {
                Listing::of(&queue::items_of(client, name, None, limit).await?)
            }
        })
    }
}
