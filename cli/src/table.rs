//! Aligned columns and label sheets for people.
//!
//! Invariants: widths are display widths of whole texts, not bytes and not sums over characters; nothing is cut unless a
//! terminal is too narrow; and no character that could move the cursor or reorder text is ever printed, whatever the server sent.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::screen::{Paint, Tone};

const GAP: &str = "  ";
/// A column that may shrink keeps at least this many columns.
const NARROWEST: usize = 6;
/// Columns beyond this go before any item's, and an item's beyond that before the rest.
const SPARE: usize = 10;
const KEY_SPARE: usize = 24;

/// What a column gives up when the terminal is too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Never cut.
    Whole,
    /// The end is cut: sentences.
    End,
    /// The middle is cut: names of which both ends tell.
    Middle,
    /// The head of the key is cut, last of all: items, whose tails tell them apart.
    Key,
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub fit: Fit,
    pub right: bool,
}

impl Column {
    pub const fn new(title: &'static str, fit: Fit) -> Self {
        Self { title, fit, right: false }
    }

    pub const fn number(title: &'static str) -> Self {
        Self { title, fit: Fit::Whole, right: true }
    }
}

#[derive(Debug, Clone)]
pub struct Cell {
    /// Printable pieces, each with its tone, set one after the other.
    pieces: Vec<(Tone, String)>,
}

impl Cell {
    pub fn new(text: &str) -> Self {
        Self::toned(Tone::Plain, text)
    }

    pub fn toned(tone: Tone, text: &str) -> Self {
        Self { pieces: vec![(tone, visible(text))] }
    }

    pub fn then(mut self, tone: Tone, text: &str) -> Self {
        self.pieces.push((tone, visible(text)));
        self
    }

    fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.width()).sum()
    }

    /// Painted, cut to `width` and padded to it.
    fn set(&self, column: &Column, width: usize, paint: Paint, last: bool) -> String {
        let natural = self.width();
        let painted: String = if natural <= width {
            self.pieces.iter().map(|(tone, text)| paint.text(*tone, text)).collect()
        } else {
            self.cut(column.fit, width).iter().map(|(tone, text)| paint.text(*tone, text)).collect()
        };
        let padding = " ".repeat(width.saturating_sub(natural));
        match (column.right, last) {
            (true, _) => padding + &painted,
            (false, true) => painted,
            (false, false) => painted + &padding,
        }
    }

    fn cut(&self, fit: Fit, width: usize) -> Vec<(Tone, String)> {
        match (self.pieces.as_slice(), fit) {
            ([(tone, text)], Fit::Middle) => return vec![(*tone, cut_middle(text, width))],
            ([(tone, text)], Fit::Key) => return vec![(*tone, cut_key(text, width))],
            _ => {}
        }
        let mut room = width.saturating_sub(1);
        let mut kept = Vec::new();
        for (tone, text) in &self.pieces {
            let head = head(text, room);
            room = room.saturating_sub(head.width());
            let cut = head.len() < text.len();
            kept.push((*tone, if cut { format!("{head}…") } else { head.to_owned() }));
            if cut {
                break;
            }
        }
        kept
    }
}

/// The text with everything replaced that a terminal would act on or hide.
pub fn visible(text: &str) -> String {
    let plain = |c: char| {
        let mut buffer = [0; 4];
        let c: &str = c.encode_utf8(&mut buffer);
        c == "\\" || trueline_drift::text::printable(c.as_bytes()) == c
    };
    text.chars().map(|c| if plain(c) { c } else { '\u{fffd}' }).collect()
}

/// As [`visible`], keeping the ends of lines: for messages of our own making.
pub fn lines_visible(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// The longest start of `text` that is at most `width` columns wide.
fn head(text: &str, width: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| is_beyond(&mut used, *c, width)).map_or(text.len(), |(at, _)| at);
    let mut head = &text[..end];
    while head.width() > width {
        head = &head[..head.floor_char_boundary(head.len() - 1)];
    }
    head
}

fn tail(text: &str, width: usize) -> &str {
    let mut used = 0;
    let beyond = text.char_indices().rev().find(|(_, c)| is_beyond(&mut used, *c, width));
    let mut tail = beyond.map_or(text, |(at, c)| &text[at + c.len_utf8()..]);
    while tail.width() > width {
        tail = &tail[tail.ceil_char_boundary(1)..];
    }
    tail
}

/// A first measure, a character at a time. It is not the width of a text, which a sign and its variation selector make larger.
fn is_beyond(used: &mut usize, c: char, width: usize) -> bool {
    *used += c.width().unwrap_or(0);
    *used > width
}

pub fn cut_end(text: &str, width: usize) -> String {
    if text.width() <= width { text.to_owned() } else { format!("{}…", head(text, width.saturating_sub(1))) }
}

pub fn cut_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let front = room / 3;
    format!("{}…{}", head(text, front), tail(text, room - front))
}

/// An item without the head of its key: `file:…/ssh/sshd_config`.
pub fn cut_key(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let kind = text.find(':').map_or("", |at| &text[..=at]);
    let kind = if kind.width() * 3 <= width { kind } else { "" };
    format!("{kind}…{}", tail(&text[kind.len()..], width.saturating_sub(kind.width() + 1)))
}

/// Rows under a heading. The columns' widths are set by the first page and kept for the ones after.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    layout: Option<Vec<usize>>,
}

impl Table {
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, layout: None }
    }

    /// The lines of one page, each ended. The heading comes with the first.
    pub fn page(&mut self, rows: &[Vec<Cell>], paint: Paint, width: Option<usize>) -> String {
        let mut out = String::new();
        let layout = match &self.layout {
            Some(layout) => layout.clone(),
            None => {
                let layout = self.lay_out(rows, width);
                let heading: Vec<Cell> = self.columns.iter().map(|column| Cell::toned(Tone::Dim, column.title)).collect();
                self.push_row(&mut out, &heading, &layout, paint);
                layout
            }
        };
        for row in rows {
            let widths: Vec<usize> = match width {
                Some(_) => layout.clone(),
                // Nobody's eyes: a row wider than the first page is not cut.
                None => layout.iter().zip(row).map(|(width, cell)| cell.width().max(*width)).collect(),
            };
            self.push_row(&mut out, row, &widths, paint);
        }
        self.layout = Some(layout);
        out
    }

    fn push_row(&self, out: &mut String, row: &[Cell], widths: &[usize], paint: Paint) {
        let last = self.columns.len().saturating_sub(1);
        for (at, ((column, cell), width)) in self.columns.iter().zip(row).zip(widths).enumerate() {
            if at > 0 {
                out.push_str(GAP);
            }
            out.push_str(&cell.set(column, *width, paint, at == last));
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }

    fn lay_out(&self, rows: &[Vec<Cell>], width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| rows.iter().filter_map(|row| row.get(at)).map(Cell::width).max().unwrap_or(0).max(column.title.width()))
            .collect();
        let Some(limit) = width else { return widths };
        let gaps = GAP.len() * self.columns.len().saturating_sub(1);
        let mut total: usize = widths.iter().sum::<usize>() + gaps;
        while total > limit {
            // Items keep their room until nothing else has any to spare.
            let among = |least: usize, fits: fn(Fit) -> bool| {
                (0..widths.len()).filter(|at| fits(self.columns[*at].fit) && widths[*at] > least).max_by_key(|at| widths[*at])
            };
            let widest = among(SPARE, |fit| matches!(fit, Fit::End | Fit::Middle))
                .or_else(|| among(KEY_SPARE, |fit| fit == Fit::Key))
                .or_else(|| among(NARROWEST, |fit| fit != Fit::Whole));
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
            total -= 1;
        }
        widths
    }
}

/// Labels and values, one a line; a value that is too wide goes on beneath itself.
#[derive(Debug, Default)]
pub struct Sheet(Vec<Line>);

#[derive(Debug)]
struct Line {
    label: &'static str,
    tone: Tone,
    value: String,
    /// Kept in one piece, for whoever copies it.
    whole: bool,
}

impl Sheet {
    pub fn row(&mut self, label: &'static str, value: &str) {
        self.toned(label, Tone::Plain, value);
    }

    pub fn toned(&mut self, label: &'static str, tone: Tone, value: &str) {
        self.0.push(Line { label, tone, value: visible(value), whole: false });
    }

    /// An address: never broken into lines.
    pub fn link(&mut self, label: &'static str, value: &str) {
        self.0.push(Line { label, tone: Tone::Actor, value: visible(value), whole: true });
    }

    /// Nothing is said of what is not known.
    pub fn maybe(&mut self, label: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.row(label, value);
        }
    }

    pub fn text(&self, paint: Paint, width: Option<usize>) -> String {
        let labels = self.0.iter().map(|line| line.label.width()).max().unwrap_or(0) + GAP.len();
        let room = width.map(|width| width.saturating_sub(labels).max(20));
        let mut out = String::new();
        for Line { label, tone, value, whole } in &self.0 {
            let lines = room.filter(|_| !whole).map_or_else(|| vec![value.clone()], |room| wrap(value, room));
            for (at, line) in lines.iter().enumerate() {
                let label = if at == 0 { *label } else { "" };
                out.push_str(&paint.text(Tone::Dim, label));
                out.push_str(&" ".repeat(labels - label.width()));
                out.push_str(&paint.text(*tone, line));
                out.push('\n');
            }
        }
        out
    }
}

/// Lines of at most `width` columns, broken at spaces where there are any.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.width() > width {
        let fit = head(rest, width.max(1));
        // A character wider than the line would otherwise never be passed.
        let fit = if fit.is_empty() { rest.get(..rest.chars().next().map_or(0, char::len_utf8)).unwrap_or(rest) } else { fit };
        let whole_word = rest[fit.len()..].starts_with(' ');
        let at = if whole_word { fit.len() } else { fit.rfind(' ').filter(|at| *at > 0).unwrap_or(fit.len()) };
        lines.push(rest[..at].trim_end().to_owned());
        rest = rest[at..].trim_start();
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        vec![Column::number("ID"), Column::new("ITEM", Fit::Middle), Column::new("BY", Fit::End)]
    }

    fn row(id: &str, item: &str, by: &str) -> Vec<Cell> {
        vec![Cell::new(id), Cell::new(item), Cell::new(by)]
    }

    #[test]
    fn wide_characters_stay_aligned() {
        let text = Table::new(columns()).page(&[row("1", "file:/設定", "a"), row("20", "file:/x", "b")], Paint::PLAIN, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].width(), lines[2].width(), "{text}");
        assert_eq!(lines[0], "ID  ITEM        BY");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_middle_of_paths_and_never_overflows() {
        let long = "file:/usr/lib/x86_64-linux-gnu/security/pam_unix.so";
        let text = Table::new(columns()).page(&[row("1", long, "alice as root · vim /etc/hosts (pid 812)")], Paint::PLAIN, Some(60));
        assert!(text.lines().all(|line| line.width() <= 60), "{text}");
        assert!(text.contains("pam_unix.so") && text.contains('…'), "{text}");
    }

    #[test]
    fn items_that_differ_in_their_tails_stay_different_on_a_narrow_terminal() {
        let columns = crate::commands::drift::listing().columns;
        let rows: Vec<Vec<Cell>> = ["accept_ra", "accept_redirects", "forwarding", "hop_limit"]
            .iter()
            .map(|name| {
                let item = format!("sysctl:net.ipv6.conf.default.{name}");
                ["12", "3m", "database-primary-1", &item, "value", "0 → 1", "alice as root · sysctl -w (pid 812)", "notable"]
                    .map(Cell::new)
                    .to_vec()
            })
            .collect();
        let text = Table::new(columns).page(&rows, Paint::PLAIN, Some(80));
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        for name in ["accept_ra ", "accept_redirects ", "forwarding ", "hop_limit "] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert_eq!(cut_key("file:/usr/lib/x86_64-linux-gnu/security/pam_unix.so", 24), "file:…curity/pam_unix.so");
        assert_eq!(cut_key("sysctl:net.ipv4.ip_forward", 12), "….ip_forward");
    }

    #[test]
    fn a_pipe_is_never_cut_even_beyond_the_first_page() {
        let mut table = Table::new(columns());
        table.page(&[row("1", "short", "a")], Paint::PLAIN, None);
        let long = "x".repeat(500);
        assert!(table.page(&[row("2", &long, "b")], Paint::PLAIN, None).contains(&long));
    }

    #[test]
    fn text_that_would_move_the_cursor_is_not_printed() {
        let text = Table::new(columns()).page(&[row("1", "\u{1b}[2Jx\u{202e}", "a\\x1b\n")], Paint::PLAIN, None);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
        assert!(text.contains("a\\x1b"), "an escape that is already text stays as it is: {text:?}");
    }

    #[test]
    fn a_sign_that_its_selector_makes_wider_is_cut_within_its_width() {
        let clouds = "\u{2601}\u{fe0f}".repeat(30);
        for width in 0..30 {
            for cut in [cut_end(&clouds, width), cut_middle(&clouds, width), cut_key(&format!("file:{clouds}"), width)] {
                assert!(cut.width() <= width.max(1), "{width}: {cut:?}");
            }
            let cell = Cell::new(&clouds).then(Tone::Dim, &clouds);
            let set = cell.set(&Column::new("BY", Fit::End), width, Paint::PLAIN, true);
            assert!(set.width() <= width.max(1), "{width}: {set:?}");
        }
    }

    #[test]
    fn wrapping_ends_even_where_nothing_fits() {
        assert_eq!(wrap("aaa bbb ccc", 7), ["aaa bbb", "ccc"]);
        assert_eq!(wrap("設設", 1), ["設", "設"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
