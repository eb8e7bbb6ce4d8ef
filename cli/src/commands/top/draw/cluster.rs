//! The members, what the cluster holds, and what is wrong.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, Wrap};

use super::{bad, bold};
use crate::commands::top::seen::{Line, Seen};
use crate::output::printable;
use crate::value::span;

/// Lines of the chart, its border included.
const CHART_LINES: u16 = 6;

/// Draws as much of it as fits: what is cut off is cut from below.
pub fn draw(frame: &mut Frame<'_>, seen: &Seen, area: Rect) {
    let members = u16::try_from(seen.lines.len().max(1)).unwrap_or(u16::MAX);
    let parts = Layout::vertical([
        Constraint::Length(members.saturating_add(3)),
        Constraint::Length(3),
        Constraint::Length(CHART_LINES),
        Constraint::Min(0),
    ]);
    let [table, contents, chart, problems] = parts.areas(area);
    frame.render_widget(self::table(seen, table.width.saturating_sub(2)), table);
    frame.render_widget(self::contents(seen), contents);
    self::chart(frame, seen, chart);
    frame.render_widget(self::problems(seen), problems);
}

/// What is cut off when there is no room is cut from the right.
const COLUMNS: [(&str, u16); 12] = [
    ("ID", 4),
    ("NAME", 12),
    ("ROLE", 9),
    ("HEALTH", 9),
    ("TERM", 6),
    ("APPLIED", 10),
    ("LAG", 8),
    ("DIGEST", 12),
    ("ENTRIES/S", 9),
    ("IN FLIGHT", 9),
    ("DISK FREE", 9),
    ("UPTIME", 8),
];

/// As many columns as have room.
fn table(seen: &Seen, room: u16) -> Table<'static> {
    let committed = seen.committed();
    let rows = seen.lines.iter().map(|line| row(line, committed));
    let mut end = 0;
    let fits = |(_, width): &&(&str, u16)| {
        end += width + 1;
        end <= room + 1
    };
    let (names, widths): (Vec<&str>, Vec<u16>) = COLUMNS.iter().take_while(fits).copied().unzip();
    Table::new(rows, widths)
        .header(Row::new(names).style(bold()))
        .block(Block::bordered().title(" members "))
}

fn row(line: &Line, committed: u64) -> Row<'static> {
    let (id, name) = (line.member.id.to_string(), line.member.name.clone());
    let Ok(status) = &line.answer else {
        return Row::new([id, name, "-".to_owned(), "no answer".to_owned()]).style(bad());
    };
    let load = status.load.unwrap_or_default();
    let role = match (line.member.voter, status.role.as_str()) {
        (false, "follower") => "learner",
        (_, role) => role,
    };
    let (health, style) = match status.healthy && status.id == line.member.id {
        true if status.alarms.is_empty() => ("ok", Style::new().fg(Color::Green)),
        true => ("alarm", Style::new().fg(Color::Yellow)),
        false => ("not well", bad()),
    };
    let numbers = [
        status.term.to_string(),
        status.applied.to_string(),
        committed.saturating_sub(status.applied).to_string(),
        // Twelve of 32 digits tell digests apart.
        status.digest.chars().take(12).collect(),
        line.rate.map_or("-".to_owned(), |rate| rate.to_string()),
        load.commands_in_flight.to_string(),
        share(load.disk_free_bytes, load.disk_size_bytes),
        span(status.uptime_ms),
    ];
    let names = [id, name, role.to_owned()].map(Cell::from);
    let health = Cell::from(health).style(style);
    let cells = names.into_iter().chain([health]);
    Row::new(cells.chain(numbers.map(Cell::from)))
}

fn share(part: u64, whole: u64) -> String {
    let percent = (u128::from(part) * 100).checked_div(whole.into());
    percent.map_or("-".to_owned(), |percent| format!("{percent} %"))
}

fn contents(seen: &Seen) -> Paragraph<'static> {
    let block = Block::bordered().title(" contents ");
    let Some(newest) = seen.newest() else {
        return Paragraph::new("").block(block);
    };
    let load = newest.load.unwrap_or_default();
    let watches = seen.answers().filter_map(|status| status.load);
    let watches: u64 = watches.map(|load| load.watches).sum();
    let counts = [
        ("leases", newest.leases),
        ("lock members", load.lock_members),
        ("queues", load.queues),
        ("processes", load.processes),
        ("sessions", load.sessions),
        ("watches", watches),
    ];
    let counts = counts.map(|(what, count)| format!("{what} {count}"));
    Paragraph::new(counts.join("   ")).block(block)
}

/// The newest rate is at the right edge.
fn chart(frame: &mut Frame<'_>, seen: &Seen, area: Rect) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = seen.rates.len().saturating_sub(width);
    let shown: Vec<u64> = seen.rates.iter().skip(skipped).copied().collect();
    let last = seen.rates.back().map_or("-".to_owned(), u64::to_string);
    let most = shown.iter().max().map_or("-".to_owned(), u64::to_string);
    let title = format!(" committed entries a second: {last} now, {most} at most ");
    let gap = vec![0; width - shown.len()];
    let bars = Sparkline::default()
        .data([gap, shown].concat())
        .style(Style::new().fg(Color::Cyan))
        .block(Block::bordered().title(title));
    frame.render_widget(bars, area);
}

/// What a person should look at, a line each.
fn problems(seen: &Seen) -> Paragraph<'static> {
    let whole = seen
        .problem
        .iter()
        .map(|problem| format!("the last look failed: {problem}"));
    let members = seen.lines.iter().flat_map(|line| {
        let said = problems_of(line).into_iter();
        said.map(|problem| format!("{}: {}", line.member.name, printable(&problem)))
    });
    let lines: Vec<Text<'_>> = whole.chain(members).map(Text::from).collect();
    Paragraph::new(lines).style(bad()).wrap(Wrap { trim: true })
}

fn problems_of(line: &Line) -> Vec<String> {
    let status = match &line.answer {
        Ok(status) => status,
        Err(error) => return vec![error.clone()],
    };
    let (mut problems, id) = (Vec::new(), status.id);
    if id != line.member.id {
        problems.push(format!("node {id} answers at this member's address"));
    }
    if !status.problem.is_empty() {
        problems.push(status.problem.clone());
    }
    problems.extend(status.alarms.iter().map(|alarm| alarm.text.clone()));
    problems
}
