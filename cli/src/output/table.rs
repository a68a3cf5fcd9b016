//! Columns.

use comfy_table::{CellAlignment, Color, ContentArrangement, Table, presets};

/// What a cell's color says. Never the only carrier of a meaning: the text says it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Busy,
    Faint,
}

/// A cell's text and tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(&text.into()), tone, right: false }
    }

    /// A number: its digits line up.
    pub(crate) fn number(number: impl ToString) -> Self {
        Self { right: true, ..Self::new(number.to_string()) }
    }

    /// Aligned like a number.
    pub(crate) fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// Text that may be missing.
    pub(crate) fn optional(text: &str) -> Self {
        if text.is_empty() { Self::toned("-", Tone::Faint) } else { Self::new(text) }
    }

    /// The text, colored where that is wanted.
    pub(crate) fn painted(&self, color: bool) -> String {
        let code = match self.tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Busy => "36",
            Tone::Faint => "2",
            Tone::Plain => return self.text.clone(),
        };
        if color { format!("\x1b[{code}m{}\x1b[0m", self.text) } else { self.text.clone() }
    }
}

/// Names and messages come from users and programs: a control character in one must not move the reader's cursor or
/// break a row in two.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Titles and rows, aligned, without borders, one row a line whatever the width: lines are for grep and for eyes.
pub(crate) fn render(headers: &[&str], rows: Vec<Vec<Cell>>, color: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let rights: Vec<bool> = rows.first().map(|row| row.iter().map(|cell| cell.right).collect()).unwrap_or_default();
    let title = |(place, text): (usize, &&str)| {
        let right = rights.get(place).copied().unwrap_or(false);
        comfy_table::Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    };
    table.set_header(headers.iter().enumerate().map(title).collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row.len(), headers.len(), "a cell for each title");
        table.add_row(row.into_iter().map(styled).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn styled(cell: Cell) -> comfy_table::Cell {
    let styled = comfy_table::Cell::new(cell.text);
    let styled = if cell.right { styled.set_alignment(CellAlignment::Right) } else { styled };
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::DarkGreen),
        Tone::Bad => styled.fg(Color::DarkRed),
        Tone::Busy => styled.fg(Color::DarkCyan),
        Tone::Faint => styled.add_attribute(comfy_table::Attribute::Dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_text_can_break_a_row() {
        let rows = vec![
            vec![Cell::new("a"), Cell::number(1)],
            vec![Cell::new("name\nwith\x1b[31m breaks"), Cell::number(100)],
        ];
        let text = render(&["NAME", "COUNT"], rows, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(!text.contains('\x1b'));
        let ends: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert!(ends.iter().all(|&end| end == ends[0]), "numbers end in one column: {text}");
    }

    #[test]
    fn color_is_there_exactly_when_it_is_wanted() {
        let rows = || vec![vec![Cell::toned("failed", Tone::Bad)]];
        assert!(render(&["STATE"], rows(), true).contains("\x1b["));
        assert!(!render(&["STATE"], rows(), false).contains("\x1b["));
        assert!(Cell::toned("x", Tone::Good).painted(true).contains("\x1b[32m"));
        assert_eq!(Cell::toned("x", Tone::Good).painted(false), "x");
    }
}
