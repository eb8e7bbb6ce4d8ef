//! What was seen of the cluster so far, and what follows from two looks: rates.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_client::ClientError;
use quorate_client::admin::{Member, NodeStatus};
use ratatui::crossterm::event::KeyCode;
use tokio::time::Instant;

use super::listing::{Asked, Listing, Table};
use crate::commands::status::Answer;
use crate::exit::Failure;

/// Rates that are kept for the chart: more than the widest terminal shows.
const RATES_MAX: usize = 512;

/// Rows that a page up or down goes over.
const PAGE_ROWS: usize = 10;

/// The members with what each says of itself, or why nobody could be asked.
pub type Members = Result<(Vec<Member>, Vec<Answer>), ClientError>;

/// What a round of questions was answered.
pub enum Look {
    /// At all members, when the answers were there.
    Members {
        /// When.
        at: Instant,
        /// What they say.
        members: Members,
    },
    /// At a list.
    List {
        /// Which.
        asked: Asked,
        /// Its rows, or why there are none.
        listing: Result<Listing, Failure>,
    },
}

/// One member at the last look.
pub struct Line {
    /// Who it is.
    pub member: Member,
    /// What it says of itself, or why it says nothing.
    pub answer: Result<NodeStatus, String>,
    /// Entries that it applied a second since the look before.
    pub rate: Option<u64>,
}

/// The cluster as it is drawn.
pub struct Seen {
    /// Who is asked for the members.
    pub endpoints: Vec<String>,
    /// How often.
    pub every: Duration,
    /// Nothing moves while it is set.
    pub paused: bool,
    /// The members at the last look that found any.
    pub lines: Vec<Line>,
    /// Why the last look found none.
    pub problem: Option<String>,
    /// The list that is shown; none for the cluster itself.
    pub asked: Option<Asked>,
    /// Its rows, or why there are none; none before the first answer.
    pub listing: Option<Result<Listing, String>>,
    /// The row that would be opened.
    pub selected: usize,
    /// Committed entries a second, oldest first.
    pub rates: VecDeque<u64>,
    applied: BTreeMap<u64, (Instant, u64)>,
    committed: Option<(Instant, u64)>,
}

impl Seen {
    /// Nothing was seen yet.
    pub fn new(endpoints: Vec<String>, every: Duration) -> Self {
        Self {
            endpoints,
            every,
            paused: false,
            lines: Vec::new(),
            problem: None,
            asked: None,
            listing: None,
            selected: 0,
            rates: VecDeque::new(),
            applied: BTreeMap::new(),
            committed: None,
        }
    }

    /// Takes a look in. While it stands still nothing changes but what was not shown yet.
    pub fn add(&mut self, look: Look) {
        match look {
            Look::Members { at, members } if !self.paused => self.add_members(at, members),
            Look::List { asked, listing } if self.asked.as_ref() == Some(&asked) => {
                if !self.paused || self.listing.is_none() {
                    self.listing = Some(listing.map_err(|failure| failure.message().to_owned()));
                    self.selected = self.selected.min(self.last_entry());
                }
            }
            Look::Members { .. } | Look::List { .. } => {}
        }
    }

    fn add_members(&mut self, at: Instant, members: Members) {
        let (members, answers) = match members {
            Ok(members) => members,
            Err(error) => {
                self.problem = Some(error.to_string());
                return;
            }
        };
        self.problem = None;
        let lines = members.into_iter().zip(answers);
        self.lines = lines
            .map(|(member, answer)| self.line(at, member, answer))
            .collect();
        let highest = self.answers().map(|status| status.committed).max();
        if let Some(committed) = highest {
            if let Some(rate) = rate(self.committed, at, committed) {
                self.rates.push_back(rate);
                let surplus = self.rates.len().saturating_sub(RATES_MAX);
                self.rates.drain(..surplus);
            }
            self.committed = Some((at, committed));
        }
    }

    fn line(&mut self, at: Instant, member: Member, answer: Answer) -> Line {
        let answer = answer.map_err(|error| error.to_string());
        let rate = answer.as_ref().ok().and_then(|status| {
            let before = self.applied.insert(member.id, (at, status.applied));
            rate(before, at, status.applied)
        });
        Line {
            member,
            answer,
            rate,
        }
    }

    /// Whether one thing of a list is shown.
    pub fn is_opened(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.of.is_some())
    }

    /// Does what a key means.
    pub fn pressed(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char(digit @ '1'..='5') => self.turn_to(digit as usize - '1' as usize),
            KeyCode::Tab | KeyCode::Right => self.turn_to(self.tab() + 1),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(self.tab() + Table::ALL.len()),
            KeyCode::Down => self.select(self.selected + 1),
            KeyCode::PageDown => self.select(self.selected + PAGE_ROWS),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Up => self.select(self.selected.saturating_sub(1)),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(PAGE_ROWS)),
            KeyCode::Home => self.select(0),
            KeyCode::Enter => self.open(),
            KeyCode::Esc | KeyCode::Backspace if self.is_opened() => self.turn_to(self.tab()),
            _ => {}
        }
    }

    /// Where the tab that is shown stands: the cluster, then the lists.
    pub fn tab(&self) -> usize {
        let table = self.asked.as_ref().map(|asked| asked.table);
        let at = Table::ALL.iter().position(|it| Some(*it) == table);
        at.map_or(0, |at| at + 1)
    }

    fn turn_to(&mut self, tab: usize) {
        let tab = tab % (Table::ALL.len() + 1);
        let table = tab.checked_sub(1).map(|at| Table::ALL[at]);
        self.ask(table.map(Asked::all));
    }

    fn open(&mut self) {
        let (Some(asked), Some(Ok(listing))) = (&self.asked, &self.listing) else {
            return;
        };
        let Some(entry) = listing.entries.get(self.selected) else {
            return;
        };
        if asked.of.is_none() {
            self.ask(Some(Asked {
                table: asked.table,
                of: Some(entry.name.clone()),
            }));
        }
    }

    fn ask(&mut self, asked: Option<Asked>) {
        if self.asked != asked {
            (self.asked, self.listing, self.selected) = (asked, None, 0);
        }
    }

    fn select(&mut self, entry: usize) {
        self.selected = entry.min(self.last_entry());
    }

    fn last_entry(&self) -> usize {
        let listing = self.listing.as_ref().and_then(|it| it.as_ref().ok());
        listing.map_or(0, |listing| listing.entries.len().saturating_sub(1))
    }

    /// What the members say that answered.
    pub fn answers(&self) -> impl Iterator<Item = &NodeStatus> {
        self.lines
            .iter()
            .filter_map(|line| line.answer.as_ref().ok())
    }

    /// The highest index that any member knows to be committed.
    pub fn committed(&self) -> u64 {
        self.answers()
            .map(|status| status.committed)
            .max()
            .unwrap_or(0)
    }

    /// The member that knows most: its contents are those of the cluster.
    pub fn newest(&self) -> Option<&NodeStatus> {
        self.answers().max_by_key(|status| status.applied)
    }

    /// Who leads, if a member that answered says so of itself in the highest term.
    pub fn leader(&self) -> Option<&Line> {
        let leads = |line: &&Line| matches!(&line.answer, Ok(status) if status.role == "leader");
        let term = |line: &&Line| line.answer.as_ref().map_or(0, |status| status.term);
        self.lines.iter().filter(leads).max_by_key(term)
    }
}

/// By how much a number rose a second; none before the second look, or if it fell: another node
/// answers, or the same one anew.
fn rate(before: Option<(Instant, u64)>, at: Instant, now: u64) -> Option<u64> {
    let (then, number) = before?;
    let rose = now.checked_sub(number)?;
    let ms = u64::try_from(at.saturating_duration_since(then).as_millis()).ok()?;
    rose.saturating_mul(1_000).checked_div(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::samples::{gone, leases, member, status};

    fn look(at: Instant, applied: &[u64]) -> Look {
        let ids = || 1..=applied.len() as u64;
        let answers = ids()
            .zip(applied)
            .map(|(id, applied)| Ok(status(id, *applied)));
        let members = Ok((ids().map(member).collect(), answers.collect()));
        Look::Members { at, members }
    }

    fn list(asked: &Asked, names: &[&str]) -> Look {
        Look::List {
            asked: asked.clone(),
            listing: Ok(leases(names)),
        }
    }

    fn empty() -> Seen {
        Seen::new(Vec::new(), Duration::from_secs(1))
    }

    #[test]
    fn rates_come_with_the_second_look_and_not_from_a_node_that_fell_back() {
        let (mut seen, start) = (empty(), Instant::now());
        seen.add(look(start, &[100, 90]));
        assert!(seen.lines.iter().all(|line| line.rate.is_none()));
        seen.add(look(start + Duration::from_millis(500), &[200, 40]));
        assert_eq!(seen.lines[0].rate, Some(200));
        assert_eq!(seen.lines[1].rate, None);
        assert_eq!(seen.rates, [200]);
        assert_eq!(
            (seen.committed(), seen.leader().map(|it| it.member.id)),
            (200, Some(1))
        );
    }

    #[test]
    fn what_was_seen_stays_while_nobody_answers_and_while_it_is_paused() {
        let (mut seen, start) = (empty(), Instant::now());
        seen.add(look(start, &[100]));
        seen.add(Look::Members {
            at: start,
            members: Err(gone()),
        });
        assert_eq!(seen.lines.len(), 1);
        assert!(
            seen.problem
                .as_ref()
                .is_some_and(|it| it.contains("refused"))
        );
        seen.pressed(KeyCode::Char('p'));
        seen.add(look(start + Duration::from_secs(1), &[300]));
        assert_eq!(seen.committed(), 100);
        seen.pressed(KeyCode::Char('p'));
        seen.add(look(start + Duration::from_secs(2), &[300]));
        assert_eq!((seen.committed(), seen.problem.is_none()), (300, true));
    }

    #[test]
    fn the_chart_is_bounded() {
        let (mut seen, start) = (empty(), Instant::now());
        for second in 0..=RATES_MAX as u64 + 10 {
            seen.add(look(start + Duration::from_secs(second), &[second]));
        }
        assert_eq!(seen.rates.len(), RATES_MAX);
    }

    #[test]
    fn keys_turn_pages_and_the_ends_meet() {
        let mut seen = empty();
        for (key, tab) in [
            (KeyCode::Char('3'), 2),
            (KeyCode::Tab, 3),
            (KeyCode::Right, 4),
            (KeyCode::Tab, 0),
            (KeyCode::BackTab, 4),
            (KeyCode::Left, 3),
            (KeyCode::Char('1'), 0),
            (KeyCode::Char('6'), 0),
        ] {
            seen.pressed(key);
            assert_eq!(seen.tab(), tab, "{key:?}");
        }
        assert_eq!(seen.asked, None);
    }

    #[test]
    fn the_selected_entry_is_opened_and_left_again() {
        let (mut seen, leases) = (empty(), Asked::all(Table::Leases));
        seen.pressed(KeyCode::Char('2'));
        seen.pressed(KeyCode::Enter);
        assert_eq!(seen.asked, Some(leases.clone()), "there is nothing yet");
        seen.add(list(&leases, &["a", "b", "c"]));
        seen.pressed(KeyCode::End);
        seen.pressed(KeyCode::Up);
        seen.pressed(KeyCode::Enter);
        let opened = Asked {
            of: Some("b".to_owned()),
            ..leases.clone()
        };
        assert_eq!(seen.asked, Some(opened.clone()));
        assert!(seen.is_opened() && seen.listing.is_none());
        seen.add(list(&opened, &["1"]));
        seen.pressed(KeyCode::Enter);
        assert_eq!(seen.asked, Some(opened), "there is nothing below it");
        seen.pressed(KeyCode::Esc);
        assert_eq!(seen.asked, Some(leases));
    }

    #[test]
    fn a_list_that_is_not_shown_any_more_is_dropped_and_a_shorter_one_keeps_a_selection() {
        let (mut seen, leases) = (empty(), Asked::all(Table::Leases));
        seen.pressed(KeyCode::Char('2'));
        seen.add(list(&Asked::all(Table::Locks), &["a"]));
        assert!(seen.listing.is_none());
        seen.pressed(KeyCode::Char('p'));
        seen.add(list(&leases, &["a", "b", "c"]));
        seen.pressed(KeyCode::PageDown);
        assert_eq!(
            seen.selected, 2,
            "the first answer is shown though it is paused"
        );
        seen.add(list(&leases, &["a"]));
        assert_eq!(seen.selected, 2);
        seen.pressed(KeyCode::Char('p'));
        seen.add(list(&leases, &["a"]));
        assert_eq!(seen.selected, 0);
    }
}
