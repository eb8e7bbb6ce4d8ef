//! Data on stdout: a table for people, JSON for scripts, one name a line for loops.
//!
//! JSON is compact and on one line. Every u64 in it is a string, since many readers of JSON lose
//! 64-bit numbers; times are RFC 3339 in UTC with milliseconds.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;

/// How to print data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One value: an object, or a list of objects
    Json,
    /// One object a line
    Jsonl,
    /// One name a line
    Name,
}

impl Format {
    /// Whether errors are JSON too.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// Something that can be printed in every format.
pub trait Row: Serialize {
    /// Titles of the table's columns.
    const HEADER: &'static [&'static str];

    /// One text a column.
    fn cells(&self) -> Vec<String>;

    /// What identifies it.
    fn name(&self) -> String;

    /// Whether a person should look at it.
    fn alarming(&self) -> bool {
        false
    }
}

/// Prints data.
pub struct Printer {
    format: Format,
    color: bool,
    out: Box<dyn Write + Send>,
}

impl Printer {
    /// To stdout, in color if a person reads it and does not mind.
    pub fn stdout(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = wanted && std::io::stdout().is_terminal();
        Self::new(format, color, Box::new(std::io::stdout()))
    }

    /// To anything.
    pub fn new(format: Format, color: bool, out: Box<dyn Write + Send>) -> Self {
        Self { format, color, out }
    }

    /// How it prints.
    pub fn format(&self) -> Format {
        self.format
    }

    /// One thing.
    pub fn one<R: Row>(&mut self, row: &R) -> std::io::Result<()> {
        match self.format {
            Format::Json => self.json(row),
            _ => self.list(std::slice::from_ref(row)),
        }
    }

    /// All of a list.
    pub fn list<R: Row>(&mut self, rows: &[R]) -> std::io::Result<()> {
        match self.format {
            Format::Table => {
                let table = table(rows, self.color);
                self.line(&table)
            }
            Format::Json => self.json(&rows),
            Format::Jsonl => rows.iter().try_for_each(|row| self.json(row)),
            Format::Name => rows.iter().try_for_each(|row| self.line(&row.name())),
        }
    }

    /// The next of a stream: a line of its own in every format.
    pub fn next<R: Row>(&mut self, row: &R) -> std::io::Result<()> {
        match self.format {
            Format::Table => self.line(&row.cells().join("  ")),
            Format::Json | Format::Jsonl => self.json(row),
            Format::Name => self.line(&row.name()),
        }
    }

    /// A value that has no columns: JSON for scripts, `text` for people.
    pub fn value<T: Serialize>(&mut self, value: &T, text: &str) -> std::io::Result<()> {
        if self.format.is_json() {
            return self.json(value);
        }
        self.line(text)
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> std::io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(&text)
    }

    fn line(&mut self, text: &str) -> std::io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

fn table<R: Row>(rows: &[R], color: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if color {
        table.enforce_styling();
    }
    table.set_header(R::HEADER.to_vec());
    for row in rows {
        let paint = |text: String| {
            let cell = Cell::new(printable(&text));
            if row.alarming() {
                cell.fg(Color::Red)
            } else {
                cell
            }
        };
        table.add_row(row.cells().into_iter().map(paint).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// What came from elsewhere must not steer the terminal or break the table.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for found in text.chars() {
        if found.is_control() {
            out.extend(found.escape_default());
        } else {
            out.push(found);
        }
    }
    out
}

/// A writer that tests can read back.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    /// A printer into it.
    pub fn printer(&self, format: Format) -> Printer {
        Printer::new(format, false, Box::new(self.clone()))
    }

    /// What was printed since the last call.
    pub fn take(&self) -> String {
        let mut bytes = self.0.lock().expect("no writer panics");
        String::from_utf8(std::mem::take(&mut *bytes)).expect("only text is printed")
    }
}

#[cfg(test)]
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("no writer panics")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair {
        name: &'static str,
        count: String,
    }

    impl Row for Pair {
        const HEADER: &'static [&'static str] = &["NAME", "COUNT"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), self.count.clone()]
        }

        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn alarming(&self) -> bool {
            self.count == "0"
        }
    }

    fn pairs() -> Vec<Pair> {
        let pair = |name, count: u64| Pair {
            name,
            count: count.to_string(),
        };
        vec![pair("a", u64::MAX), pair("longer", 0)]
    }

    fn printed(format: Format, print: impl FnOnce(&mut Printer) -> std::io::Result<()>) -> String {
        let captured = Captured::default();
        print(&mut captured.printer(format)).expect("memory takes everything");
        captured.take()
    }

    #[test]
    fn a_list_in_every_format() {
        let list = |format| printed(format, |printer| printer.list(&pairs()));
        assert_eq!(
            list(Format::Table),
            "NAME    COUNT\na       18446744073709551615\nlonger  0\n"
        );
        assert_eq!(
            list(Format::Json),
            "[{\"name\":\"a\",\"count\":\"18446744073709551615\"},\
             {\"name\":\"longer\",\"count\":\"0\"}]\n"
        );
        assert_eq!(
            list(Format::Jsonl),
            "{\"name\":\"a\",\"count\":\"18446744073709551615\"}\n\
             {\"name\":\"longer\",\"count\":\"0\"}\n"
        );
        assert_eq!(list(Format::Name), "a\nlonger\n");
    }

    #[test]
    fn an_empty_list_is_a_header_an_empty_list_or_nothing() {
        let empty = |format| printed(format, |printer| printer.list::<Pair>(&[]));
        assert_eq!(empty(Format::Table), "NAME  COUNT\n");
        assert_eq!(empty(Format::Json), "[]\n");
        assert_eq!(empty(Format::Jsonl), "");
        assert_eq!(empty(Format::Name), "");
    }

    #[test]
    fn one_thing_is_an_object_and_the_next_of_a_stream_a_line() {
        let one = printed(Format::Json, |printer| printer.one(&pairs()[1]));
        assert_eq!(one, "{\"name\":\"longer\",\"count\":\"0\"}\n");
        let next = printed(Format::Json, |printer| printer.next(&pairs()[1]));
        assert_eq!(next, one);
        assert_eq!(
            printed(Format::Table, |printer| printer.next(&pairs()[1])),
            "longer  0\n"
        );
    }

    #[test]
    fn only_what_is_alarming_is_red_and_only_if_color_is_wanted() {
        let captured = Captured::default();
        let mut printer = Printer::new(Format::Table, true, Box::new(captured.clone()));
        printer.list(&pairs()).expect("memory takes everything");
        let text = captured.take();
        let red: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("\u{1b}["))
            .collect();
        assert_eq!(red.len(), 1, "{text:?}");
        assert!(red[0].contains("longer"), "{text:?}");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
    }
}
