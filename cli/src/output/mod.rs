//! How answers are printed. Commands hand over views; what becomes of them is decided here alone, so that every verb
//! has every form and none has its own.
//!
//! Invariants: tables are for people and may change; JSON is for programs, is documented in docs/cli.md and only grows.
//! Nothing here writes to standard error, and nothing else writes to standard output but logs and generated files.

pub(crate) mod answers;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod definition;
pub(crate) mod detail;
pub(crate) mod executor;
pub(crate) mod explain;
mod folding;
pub(crate) mod group;
pub(crate) mod namespace;
pub(crate) mod schedule;
pub(crate) mod scheduler;
pub(crate) mod store;
mod table;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod time;
pub(crate) mod update;
pub(crate) mod views;

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use detail::in_words;
pub(crate) use folding::Folding;
pub(crate) use table::{Cell, Tone};

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// Columns for people
    #[default]
    Table,
    /// More columns for people
    Wide,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// Just the ids, one a line
    Name,
}

/// Something that is listed.
pub(crate) trait Row: Serialize {
    /// What `-o name` prints: the thing's id, as other verbs take it.
    fn name(&self) -> String;
    /// Column titles.
    fn headers(wide: bool) -> Vec<&'static str>;
    /// As many as there are titles.
    fn cells(&self, wide: bool, now: Timestamp) -> Vec<Cell>;
}

/// Something that is shown alone, at length.
pub(crate) trait Detail: Serialize {
    /// What `-o name` prints.
    fn name(&self) -> String;
    /// For people.
    fn show(&self, page: &mut Page<'_>) -> io::Result<()>;
}

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) color: bool,
    /// Ages are counted from here; the same for all of one answer.
    pub(crate) now: Timestamp,
}

impl Output {
    /// Prints a list to standard output.
    pub(crate) fn list<T: Row>(&self, rows: &[T]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.list_to(&mut out, rows)?;
        out.flush()
    }

    /// Prints one thing to standard output.
    pub(crate) fn one<T: Detail>(&self, thing: &T) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.one_to(&mut out, thing)?;
        out.flush()
    }

    pub(crate) fn list_to<T: Row>(&self, out: &mut dyn Write, rows: &[T]) -> io::Result<()> {
        match self.form {
            Form::Table | Form::Wide => Page { out, output: *self }.table(rows),
            Form::Json => json(out, &rows),
            Form::Jsonl => rows.iter().try_for_each(|row| json_line(out, row)),
            Form::Name => rows.iter().try_for_each(|row| writeln!(out, "{}", row.name())),
        }
    }

    pub(crate) fn one_to<T: Detail>(&self, out: &mut dyn Write, thing: &T) -> io::Result<()> {
        match self.form {
            Form::Table | Form::Wide => thing.show(&mut Page { out, output: *self }),
            Form::Json => json(out, thing),
            Form::Jsonl => json_line(out, thing),
            Form::Name => writeln!(out, "{}", thing.name()),
        }
    }

    /// Whether people read it.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.form, Form::Table | Form::Wide)
    }
}

fn json<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

fn json_line<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

/// A text for people in the making.
pub(crate) struct Page<'a> {
    out: &'a mut dyn Write,
    output: Output,
}

impl Page<'_> {
    pub(crate) fn now(&self) -> Timestamp {
        self.output.now
    }

    pub(crate) fn is_wide(&self) -> bool {
        self.output.form == Form::Wide
    }

    /// A list in columns; nothing at all, but the titles, for an empty one.
    pub(crate) fn table<T: Row>(&mut self, rows: &[T]) -> io::Result<()> {
        let wide = self.is_wide();
        let cells = rows.iter().map(|row| row.cells(wide, self.output.now)).collect();
        self.out.write_all(table::render(&T::headers(wide), cells, self.output.color).as_bytes())
    }

    /// A headline above a table.
    pub(crate) fn headline(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{text}")
    }

    /// A text as it is, but for what could steer a terminal.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        let plain: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        write!(self.out, "{plain}{}", if plain.ends_with('\n') { "" } else { "\n" })
    }

    /// A line of a list under a headline.
    pub(crate) fn item(&mut self, text: &Cell) -> io::Result<()> {
        writeln!(self.out, "- {}", text.painted(self.output.color))
    }

    /// `name:  value` lines.
    pub(crate) fn facts(&mut self, facts: Vec<(&str, Cell)>) -> io::Result<()> {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, cell) in facts {
            writeln!(self.out, "{name}:{:pad$}  {}", "", cell.painted(self.output.color), pad = width - name.len())?;
        }
        Ok(())
    }
}
