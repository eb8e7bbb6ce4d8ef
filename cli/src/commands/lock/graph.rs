//! `quorate lock graph`: who waits for whom, and who can never go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use quorate_client::{Client, acquisition_text};
use quorate_statemachine::lock::{LockView, Member};
use quorate_statemachine::{Owner, Timestamp};
use serde::Serialize;

use super::rows::mode_words;
use super::{locks, waiters_of};
use crate::exit::Failure;
use crate::output::{Format, Printer, Row};
use crate::value::span;

/// Deeper chains are cut in the text for people.
const DEPTH_MAX: usize = 32;

/// Prints who waits for locks whose key starts with `prefix`, and for whom: an edge for each waiter
/// and holder, a tree for people. Each lock is read on its own, so that what changes meanwhile may
/// be shown in part.
pub async fn run(client: &Client, prefix: &str, printer: &mut Printer) -> Result<(), Failure> {
    let (views, mut now) = locks(client, prefix, 0).await?;
    let mut wanted = Vec::new();
    for view in views.into_iter().filter(|view| view.lock.waiters > 0) {
        let (waiters, at) = waiters_of(client, &view.lock.key, 0).await?;
        now = now.max(at);
        wanted.push(Wanted { view, waiters });
    }
    let graph = Graph::new(wanted, now);
    match printer.format() {
        Format::Table => printer.value(&(), graph.text().trim_end())?,
        _ => printer.list(&graph.edges())?,
    }
    Ok(())
}

/// A lock that somebody waits for.
struct Wanted {
    view: LockView,
    waiters: Vec<Member>,
}

impl Wanted {
    /// Whether a wait for it depends on the owners that `stuck` names: any holder of an exclusive
    /// or shared lock is in the way; of permits, all of them must be.
    fn depends_on(&self, stuck: &BTreeSet<Id>) -> bool {
        let holders = &self.view.holders;
        let mut owners = holders.iter().map(|holder| id(&holder.owner));
        if self.view.lock.permits.is_none() {
            return owners.any(|owner| stuck.contains(&owner));
        }
        let all_shown = self.view.lock.holders as usize == holders.len();
        all_shown && !holders.is_empty() && owners.all(|owner| stuck.contains(&owner))
    }
}

/// An owner: its id and its incarnation.
type Id = (String, String);

fn id(owner: &Owner) -> Id {
    (owner.owner_id.to_string(), owner.incarnation_id.to_string())
}

struct Graph {
    wanted: Vec<Wanted>,
    now: Timestamp,
    /// Owners whose wait depends on itself: in a circle, or behind one.
    stuck: BTreeSet<Id>,
}

impl Graph {
    fn new(wanted: Vec<Wanted>, now: Timestamp) -> Self {
        let stuck = stuck(&wanted);
        Self { wanted, now, stuck }
    }

    fn edges(&self) -> Vec<Edge> {
        self.wanted
            .iter()
            .flat_map(|it| self.edges_of(it))
            .collect()
    }

    fn edges_of(&self, wanted: &Wanted) -> Vec<Edge> {
        let deadlock = wanted.depends_on(&self.stuck);
        let mut edges = Vec::new();
        for (position, waiter) in (1_u64..).zip(&wanted.waiters) {
            let edge = Edge {
                key: wanted.view.lock.key.to_string(),
                position: position.to_string(),
                acquisition: acquisition_text(waiter.id.id),
                mode: waiter.mode.as_str(),
                waiter_owner_id: waiter.owner.owner_id.to_string(),
                waiter_incarnation_id: waiter.owner.incarnation_id.to_string(),
                waiting_ms: self.now.since(waiter.asked_at).to_string(),
                holder_owner_id: None,
                holder_incarnation_id: None,
                fencing_token: None,
                deadlock,
            };
            if wanted.view.holders.is_empty() {
                edges.push(edge);
                continue;
            }
            edges.extend(wanted.view.holders.iter().map(|holder| Edge {
                holder_owner_id: Some(holder.owner.owner_id.to_string()),
                holder_incarnation_id: Some(holder.owner.incarnation_id.to_string()),
                fencing_token: holder.fencing_token().map(|token| token.to_string()),
                ..edge.clone()
            }));
        }
        edges
    }

    fn text(&self) -> String {
        if self.wanted.is_empty() {
            return "nobody waits".to_owned();
        }
        let mut tree = Tree::new(self);
        for wanted in &self.wanted {
            if wanted.view.holders.is_empty() {
                let key = wanted.view.lock.key.as_str();
                tree.line(0, &format!("{key} is held by nobody just now"));
                tree.waiters(wanted, 1);
            }
        }
        let waiting: BTreeSet<Id> = self
            .wanted
            .iter()
            .flat_map(|wanted| wanted.waiters.iter().map(|waiter| id(&waiter.owner)))
            .collect();
        // First those who could go on, then those in circles, who have no first.
        let holding: Vec<Id> = tree.holds.keys().cloned().collect();
        let (behind, first): (Vec<_>, Vec<_>) =
            holding.into_iter().partition(|it| waiting.contains(it));
        for owner in first.iter().chain(&behind) {
            if !tree.shown.contains(owner) {
                tree.owner(owner, 0);
            }
        }
        tree.text
    }
}

/// Owners that wait for each other, found by taking away whoever can go on, until nobody is left
/// who can. An owner is one flow of control: it waits as long as any of its waits does.
fn stuck(wanted: &[Wanted]) -> BTreeSet<Id> {
    let waits = wanted.iter().flat_map(|wanted| &wanted.waiters);
    let mut stuck: BTreeSet<Id> = waits.map(|waiter| id(&waiter.owner)).collect();
    loop {
        let blocked = wanted.iter().filter(|wanted| wanted.depends_on(&stuck));
        let waits = blocked.flat_map(|wanted| &wanted.waiters);
        let left: BTreeSet<Id> = waits.map(|waiter| id(&waiter.owner)).collect();
        if left.len() == stuck.len() {
            return left;
        }
        stuck = left;
    }
}

/// The text for people, under way.
struct Tree<'a> {
    graph: &'a Graph,
    /// Wanted locks by who holds them.
    holds: BTreeMap<Id, Vec<(&'a Wanted, &'a Member)>>,
    /// Owners whose holds were told: they are told once.
    shown: BTreeSet<Id>,
    text: String,
}

impl<'a> Tree<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut holds: BTreeMap<Id, Vec<(&Wanted, &Member)>> = BTreeMap::new();
        for wanted in &graph.wanted {
            for holder in &wanted.view.holders {
                let of_owner = holds.entry(id(&holder.owner)).or_default();
                of_owner.push((wanted, holder));
            }
        }
        Self {
            graph,
            holds,
            shown: BTreeSet::new(),
            text: String::new(),
        }
    }

    fn line(&mut self, depth: usize, words: &str) {
        let printable: String = words
            .chars()
            .flat_map(|it| match it.is_control() {
                true => it.escape_default().collect::<Vec<_>>(),
                false => vec![it],
            })
            .collect();
        // Memory takes everything.
        let _ = writeln!(self.text, "{:width$}{printable}", "", width = depth * 2);
    }

    /// What an owner holds, and who waits for that.
    fn owner(&mut self, owner: &Id, depth: usize) {
        let Some(holds) = self.holds.get(owner).cloned() else {
            return;
        };
        if !self.shown.insert(owner.clone()) {
            let more = format!("{} holds more, shown above", owner.0);
            return self.line(depth, &more);
        }
        if depth >= DEPTH_MAX {
            return self.line(depth, "…");
        }
        for (wanted, holder) in holds {
            let words = format!(
                "{} holds {}, fencing token {}, {} left",
                owner.0,
                wanted.view.lock.key,
                holder.fencing_token().unwrap_or_default(),
                span(holder.expires_at.since(self.graph.now)),
            );
            self.line(depth, &words);
            self.waiters(wanted, depth + 1);
        }
    }

    fn waiters(&mut self, wanted: &Wanted, depth: usize) {
        let deadlock = match wanted.depends_on(&self.graph.stuck) {
            true => "  DEADLOCK: this wait depends on itself",
            false => "",
        };
        for (position, waiter) in (1..).zip(&wanted.waiters) {
            let words = format!(
                "{position}. {} has waited {} for it ({}){deadlock}",
                waiter.owner.owner_id,
                span(self.graph.now.since(waiter.asked_at)),
                mode_words(waiter.mode),
            );
            self.line(depth, &words);
            self.owner(&id(&waiter.owner), depth + 1);
        }
    }
}

/// Who waits for whom.
#[derive(Debug, Clone, Serialize)]
struct Edge {
    key: String,
    position: String,
    acquisition: String,
    mode: &'static str,
    waiter_owner_id: String,
    waiter_incarnation_id: String,
    waiting_ms: String,
    /// None while nobody holds the lock.
    holder_owner_id: Option<String>,
    holder_incarnation_id: Option<String>,
    fencing_token: Option<String>,
    /// The wait depends on itself: it is in a circle, or behind one.
    deadlock: bool,
}

impl Row for Edge {
    const HEADER: &'static [&'static str] = &["WAITER", "KEY", "HOLDER", "TOKEN", "DEADLOCK"];

    fn cells(&self) -> Vec<String> {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.waiter_owner_id.clone(),
            self.key.clone(),
            known(&self.holder_owner_id),
            known(&self.fencing_token),
            self.deadlock.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.acquisition.clone()
    }

    fn alarming(&self) -> bool {
        self.deadlock
    }
}

#[cfg(test)]
mod tests {
    use quorate_statemachine::Name;
    use quorate_statemachine::lock::{Lock, Mode, Place};
    use quorate_statemachine::request::RequestId;

    use super::*;

    fn member(owner: &str, place: Place) -> Member {
        let name = |text: &str| Name::parse("name", text).expect("a name");
        Member {
            id: RequestId {
                id: [0; 16],
                not_before: 0,
            },
            owner: Owner::new(name(owner), name("boot")),
            mode: Mode::Exclusive,
            ttl_ms: 1,
            wait_ttl_ms: 1,
            delay_ms: 0,
            reentrant: false,
            asked_at: Timestamp(0),
            expires_at: Timestamp(1),
            filed_at: Timestamp(1),
            place,
            metadata: Vec::new(),
        }
    }

    fn wanted(key: &str, permits: Option<u32>, holders: &[&str], waiters: &[&str]) -> Wanted {
        let holding = Place::Holding {
            fencing_token: 1,
            granted_at: Timestamp(0),
            renewed_at: Timestamp(0),
        };
        let waiting = Place::Waiting {
            ticket: 1,
            give_up_at: None,
        };
        let members = |owners: &[&str], place| owners.iter().map(|it| member(it, place)).collect();
        Wanted {
            view: LockView {
                lock: Lock {
                    key: Name::parse("key", key).expect("a name"),
                    permits,
                    holders: u32::try_from(holders.len()).expect("few"),
                    exclusive: permits.is_none(),
                    waiters: u32::try_from(waiters.len()).expect("few"),
                    last_token: 1,
                    blocked_until: Timestamp(0),
                },
                holders: members(holders, holding),
            },
            waiters: members(waiters, waiting),
        }
    }

    fn deadlocks(wanted: Vec<Wanted>) -> Vec<(String, bool)> {
        let graph = Graph::new(wanted, Timestamp(0));
        let edges = graph.edges();
        edges
            .into_iter()
            .map(|it| (it.waiter_owner_id, it.deadlock))
            .collect()
    }

    #[test]
    fn a_circle_and_whoever_waits_behind_it_are_marked() {
        let circle = || {
            vec![
                wanted("a", None, &["one"], &["two", "behind"]),
                wanted("b", None, &["two"], &["one"]),
                wanted("c", None, &["free"], &["other"]),
            ]
        };
        let marked = deadlocks(circle());
        let expected = [
            ("two", true),
            ("behind", true),
            ("one", true),
            ("other", false),
        ];
        let expected = expected.map(|(owner, stuck)| (owner.to_owned(), stuck));
        assert_eq!(marked, expected);
        let text = Graph::new(circle(), Timestamp(0)).text();
        assert_eq!(text.matches("DEADLOCK").count(), 3, "{text}");
        assert!(text.contains("one holds more, shown above"), "{text}");
    }

    #[test]
    fn a_permit_is_out_of_reach_only_if_all_its_holders_wait_in_the_circle() {
        let marked = deadlocks(vec![
            wanted("pool", Some(2), &["one", "free"], &["two"]),
            wanted("b", None, &["two"], &["one"]),
        ]);
        assert!(marked.iter().all(|(_, stuck)| !stuck), "{marked:?}");
        let marked = deadlocks(vec![
            wanted("pool", Some(2), &["one", "one"], &["two"]),
            wanted("b", None, &["two"], &["one"]),
        ]);
        assert!(marked.iter().all(|(_, stuck)| *stuck), "{marked:?}");
    }
}
