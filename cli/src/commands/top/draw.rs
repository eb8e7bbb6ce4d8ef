//! Puts what was seen on the screen.

mod cluster;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState, Wrap};

use super::listing::{self, Asked, ENTRIES_MAX, Listing};
use super::seen::Seen;
use crate::args::millis;
use crate::value::span;

/// No column of a list is wider.
const COLUMN_MAX: usize = 40;

/// Blanks between two columns of a list.
const GAP: u16 = 2;

/// Draws everything, as far as it fits.
pub fn draw(frame: &mut Frame<'_>, seen: &Seen) {
    let parts = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [title, tabs, body, keys] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(heading(seen)), title);
    frame.render_widget(Paragraph::new(self::tabs(seen)), tabs);
    match &seen.asked {
        None => cluster::draw(frame, seen, body),
        Some(asked) => list(frame, seen, asked, body),
    }
    frame.render_widget(Paragraph::new(help(seen)).style(dim()), keys);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn bad() -> Style {
    Style::new().fg(Color::Red)
}

fn tabs(seen: &Seen) -> Line<'static> {
    let titles = listing::Table::ALL.map(listing::Table::title);
    let titles = std::iter::once("cluster").chain(titles);
    let tab = |(at, title): (usize, &str)| {
        let style = match at == seen.tab() {
            true => bold().add_modifier(Modifier::REVERSED),
            false => dim(),
        };
        Span::styled(format!(" {} {title} ", at + 1), style)
    };
    titles.enumerate().map(tab).collect()
}

fn help(seen: &Seen) -> String {
    let paused = match seen.paused {
        true => "PAUSED    p go on",
        false => "p pause",
    };
    let list = match &seen.asked {
        None => "",
        Some(Asked { of: None, .. }) => "    ↑↓ select    Enter open",
        Some(Asked { of: Some(_), .. }) => "    ↑↓ scroll    Esc back",
    };
    format!("{paused}    1-5 Tab turn{list}    q quit")
}

fn heading(seen: &Seen) -> Vec<Line<'static>> {
    let Some(newest) = seen.newest() else {
        return vec![Line::from(format!(
            "asking {} …",
            seen.endpoints.join(", ")
        ))];
    };
    let leader = match seen.leader() {
        Some(line) => Span::raw(format!("leader {}", line.member.name)),
        None => Span::styled("no leader", bad()),
    };
    let said = format!(
        "   term {}   cluster version {}   every {}",
        newest.term,
        newest.cluster_version,
        span(millis(seen.every))
    );
    let answered = format!(
        "{} of {} answer   ",
        seen.answers().count(),
        seen.lines.len()
    );
    vec![
        Line::from(format!("cluster {}", newest.cluster_id)),
        Line::from(vec![Span::raw(answered), leader, Span::raw(said)]),
    ]
}

/// A list with the selected row in sight.
fn list(frame: &mut Frame<'_>, seen: &Seen, asked: &Asked, area: Rect) {
    let block = |said: &str| Block::bordered().title(format!(" {}{said} ", asked.title()));
    let listing = match &seen.listing {
        Some(Ok(listing)) => listing,
        Some(Err(problem)) => {
            let problem = Paragraph::new(problem.clone()).style(bad());
            let problem = problem.wrap(Wrap { trim: true }).block(block(""));
            return frame.render_widget(problem, area);
        }
        None => return frame.render_widget(Paragraph::new("asking …").block(block("")), area),
    };
    let mut said = String::new();
    if listing.entries.is_empty() {
        said.push_str(": none");
    }
    if listing.more {
        said.push_str(&format!(": the first {ENTRIES_MAX}"));
        if asked.of.is_none() {
            said.push_str(", others by --prefix");
        }
    }
    if !listing.confirmed {
        said.push_str(" (confirmed by no leader: may be old)");
    }
    let rows = listing.entries.iter();
    let rows = rows.map(|entry| Row::new(entry.cells.iter().map(String::as_str)));
    let table = Table::new(rows, widths(listing, area.width.saturating_sub(2)))
        .header(Row::new(listing.header.iter().copied()).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(GAP)
        .block(block(&said));
    let mut state = TableState::new().with_selected(Some(seen.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

/// As wide as what is in them; where that is too much, the widest give way.
fn widths(listing: &Listing, room: u16) -> Vec<u16> {
    let width = |(at, title): (usize, &&str)| {
        let cells = listing.entries.iter();
        let cells = cells.filter_map(|entry| entry.cells.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        let width = widest.max(title.len()).min(COLUMN_MAX);
        u16::try_from(width).unwrap_or(u16::MAX)
    };
    let mut widths: Vec<u16> = listing.header.iter().enumerate().map(width).collect();
    let gaps = GAP * u16::try_from(widths.len().saturating_sub(1)).unwrap_or(u16::MAX);
    while gaps + widths.iter().sum::<u16>() > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > 1 => *widest -= 1,
            _ => break,
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use tokio::time::Instant;

    use super::*;
    use crate::commands::top::samples::{gone, leases, member, status};
    use crate::commands::top::seen::Look;

    /// The screen as lines without what is blank at their ends.
    fn screen(seen: &Seen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
        let drawn = terminal.draw(|frame| draw(frame, seen)).expect("memory");
        let cells = drawn.buffer.content().chunks(width.into());
        let line =
            |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect();
        cells
            .map(line)
            .map(|line: String| line.trim_end().to_owned())
            .collect()
    }

    fn three() -> Seen {
        let mut seen = Seen::new(vec!["h1:7400".to_owned()], Duration::from_secs(1));
        let start = Instant::now();
        let look = |at, applied| Look::Members {
            at,
            members: Ok((
                vec![member(1), member(2), member(3)],
                vec![
                    Ok(status(1, applied)),
                    Ok(status(2, applied - 8)),
                    Err(gone()),
                ],
            )),
        };
        seen.add(look(start, 1_000));
        seen.add(look(start + Duration::from_secs(2), 1_500));
        seen
    }

    #[test]
    fn a_cluster_with_a_member_down_is_one_screen() {
        let screen = screen(&three(), 120, 24);
        assert_eq!(screen[0], "cluster c1");
        assert_eq!(
            screen[1],
            "2 of 3 answer   leader n1   term 3   cluster version 2   every 1s"
        );
        assert_eq!(
            screen[2],
            " 1 cluster  2 leases  3 locks  4 processes  5 queues"
        );
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let leader = "│1 n1 leader ok 3 1500 0 0123456789ab 250 5 33 % 1m 1s";
        assert!(words(&screen[5]).starts_with(leader), "{}", screen[5]);
        let follower = "│2 n2 follower ok 3 1492 8 0123456789ab 250 5 33 % 1m 1s";
        assert!(words(&screen[6]).starts_with(follower), "{}", screen[6]);
        assert!(
            words(&screen[7]).starts_with("│3 n3 - no answer"),
            "{}",
            screen[7]
        );
        let all = screen.join("\n");
        for shown in [
            "leases 7   lock members 0   queues 0   processes 0   sessions 2   watches 8",
            "committed entries a second: 250 now, 250 at most",
            "n3: unavailable: refused",
            "p pause    1-5 Tab turn    q quit",
        ] {
            assert!(all.contains(shown), "{shown} is not in\n{all}");
        }
    }

    #[test]
    fn before_the_first_answer_it_says_whom_it_asks() {
        let mut seen = Seen::new(vec!["h1:7400".to_owned()], Duration::from_secs(1));
        assert_eq!(screen(&seen, 80, 24)[0], "asking h1:7400 …");
        seen.add(Look::Members {
            at: Instant::now(),
            members: Err(gone()),
        });
        let all = screen(&seen, 80, 24).join("\n");
        assert!(
            all.contains("the last look failed: unavailable: refused"),
            "{all}"
        );
    }

    #[test]
    fn a_list_has_its_rows_and_says_what_it_is_not() {
        let mut seen = three();
        seen.pressed(KeyCode::Char('2'));
        assert!(screen(&seen, 80, 10).join("\n").contains("asking"));
        seen.add(Look::List {
            asked: Asked::all(listing::Table::Leases),
            listing: Ok(Listing {
                more: true,
                confirmed: false,
                ..leases(&["jobs/a", "jobs/b"])
            }),
        });
        let shown = screen(&seen, 120, 10).join("\n");
        for words in [
            " leases: the first 200, others by --prefix (confirmed by no leader: may be old) ",
            "KEY     OWNER  TOKEN",
            "jobs/a  me     41",
            "jobs/b  me     41",
            "Enter open",
        ] {
            assert!(shown.contains(words), "{words} is not in\n{shown}");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_where_it_is_longest() {
        let listing = leases(&["a-key-of-thirty-characters-000"]);
        assert_eq!(widths(&listing, 80), [30, 5, 5]);
        assert_eq!(widths(&listing, 24), [10, 5, 5]);
        assert_eq!(widths(&listing, 0), [1, 1, 1]);
    }

    #[test]
    fn a_narrow_screen_has_the_first_columns_whole() {
        let shown = screen(&three(), 80, 24);
        assert!(
            shown[4].contains("APPLIED") && shown[4].contains("DIGEST"),
            "{}",
            shown[4]
        );
        assert!(!shown[4].contains("ENTRIES"), "{}", shown[4]);
        assert!(
            shown[5].contains(" 1500 ") && shown[5].contains("0123456789ab"),
            "{}",
            shown[5]
        );
    }

    #[test]
    fn the_selected_row_is_in_sight_however_long_the_list_is() {
        let names: Vec<String> = (0..100).map(|at| format!("key-{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut seen = three();
        seen.pressed(KeyCode::Char('2'));
        seen.add(Look::List {
            asked: Asked::all(listing::Table::Leases),
            listing: Ok(leases(&names)),
        });
        seen.pressed(KeyCode::End);
        let shown = screen(&seen, 80, 12).join("\n");
        assert!(
            shown.contains("key-99") && !shown.contains("key-0"),
            "{shown}"
        );
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        let mut seen = three();
        for page in ['1', '2'] {
            seen.pressed(KeyCode::Char(page));
            for (width, height) in [(1, 1), (2, 40), (10, 3), (40, 10), (300, 100)] {
                assert_eq!(screen(&seen, width, height).len(), usize::from(height));
            }
        }
    }
}
