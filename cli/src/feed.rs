//! The live feed in the terminal: a line per change and per drift that opened, moved or closed.
//!
//! On a narrow terminal an event takes more lines, each beneath its item; in a pipe it is one line.

use std::collections::VecDeque;

use trueline_drift::baseline::EXISTS;
use trueline_drift::{Actor, FieldChange, ItemId};
use unicode_width::UnicodeWidthStr;

use crate::age::{clock, now};
use crate::counted::counted;
use crate::failure::Failure;
use crate::screen::{Screen, Tone};
use crate::shape::{self, Change, Drift, Gap};
use crate::sse::Event;
use crate::table::{cut_end, cut_middle, visible};

/// Columns before the item: the clock, the verdict, and the gaps behind them.
const MARGIN: usize = 10;
const VERDICT: usize = 13;
const GAP: &str = "  ";

/// A piece of a line: its tone and its printable text.
type Piece = (Tone, String);

#[derive(Debug)]
pub struct Feed {
    screen: Screen,
    /// Several hosts speak: each line says whose it is.
    name_hosts: bool,
    /// Changes shown lately, newest last: a drift that follows need not name its actor again.
    shown: VecDeque<i64>,
    /// What the last line but drift beneath it was of: only what is of the same host and item may stand beneath.
    above: Option<Above>,
}

/// A change that drift may stand beneath.
#[derive(Debug)]
struct Above {
    host: String,
    item: ItemId,
    change: i64,
    fields: Vec<FieldChange>,
}

/// How many changes back a drift may refer.
const SHOWN: usize = 256;

impl Feed {
    pub fn new(screen: Screen, name_hosts: bool) -> Self {
        Self { screen, name_hosts, shown: VecDeque::new(), above: None }
    }

    pub fn show(&mut self, event: &Event) -> Result<(), Failure> {
        if self.screen.is_json() {
            let line = serde_json::json!({ event.name.as_str(): event.data });
            return Ok(self.screen.json_line(&line)?);
        }
        let text = match event.name.as_str() {
            "change" => self.change(&shape::read(&event.data)?),
            "drift" => self.drift(&shape::read(&event.data)?),
            "gap" => self.gap(&shape::read(&event.data)?),
            // A newer collector may speak of things this version does not know.
            _ => return Ok(()),
        };
        Ok(self.screen.line(&text)?)
    }

    fn change(&mut self, change: &Change) -> String {
        self.shown.push_back(change.id);
        if self.shown.len() > SHOWN {
            self.shown.pop_front();
        }
        self.above =
            Some(Above { host: change.host_name.clone(), item: change.item.clone(), change: change.id, fields: change.fields.clone() });
        let verdict = change.verdict.as_deref().unwrap_or("unjudged");
        let item = self.item(&change.host_name, &change.item.to_string());
        let head = (Tone::of_verdict(verdict), verdict.replace('_', " "));
        self.lines(&clock(change.observed_at), head, item, shape::transition(change), Some(&change.actor))
    }

    fn drift(&mut self, drift: &Drift) -> String {
        let event = drift.event.as_deref().unwrap_or(&drift.state).to_owned();
        let tone = match event.as_str() {
            "resolved" => Tone::Good,
            "acknowledged" => Tone::Dim,
            _ => Tone::of_verdict(&drift.verdict),
        };
        let explained = if event == "resolved" { drift.resolved_by } else { drift.change };
        let (expected, actual) = shape::departure(drift);
        let exists = drift.field == EXISTS.as_str();
        // An item is absent again; a field is what it was again.
        let field = if exists && event == "resolved" { String::new() } else { format!("{} ", drift.field) };
        let folded = drift.folded_under.as_ref().map(|package| format!(", folded under {package}")).unwrap_or_default();
        let gravity = (Tone::Dim, format!("({}, {}{folded})", drift.severity, drift.drift_type));
        let above = self
            .above
            .as_ref()
            .filter(|above| Some(above.change) == explained && above.item == drift.item && above.host == drift.host_name);
        let is_told = above.is_some_and(|above| {
            let same =
                |field: &FieldChange| field.name.as_str() == drift.field && field.before == drift.expected && field.after == drift.actual;
            above.fields.iter().any(same)
        });
        let beneath = above.is_some();
        let mut what = vec![(Tone::Dim, format!("drift {} {event}: ", drift.id)), (Tone::Plain, field)];
        match event.as_str() {
            "resolved" => what.extend([(Tone::Dim, "is ".into()), (Tone::After, expected), (Tone::Dim, " again".into())]),
            // The change right above has told the values.
            "opened" if is_told => what.push(gravity),
            _ => {
                what.extend([
                    (Tone::Dim, "expected ".into()),
                    (Tone::Before, expected),
                    (Tone::Dim, ", is ".into()),
                    (Tone::After, actual),
                ]);
                what.push((Tone::Dim, " ".into()));
                what.push(gravity);
            }
        }
        if beneath {
            return self.row("", (Tone::Plain, String::new()), &what);
        }
        self.above = None;
        let at = match event.as_str() {
            "resolved" => drift.resolved_at.unwrap_or(drift.updated_at),
            "opened" => drift.opened_at,
            _ => drift.updated_at,
        };
        let told = explained.is_some_and(|change| self.shown.contains(&change));
        let actor = drift.actor.as_ref().filter(|_| !told && event != "resolved");
        self.lines(&clock(at), (tone, event), self.item(&drift.host_name, &drift.item.to_string()), what, actor)
    }

    fn gap(&mut self, gap: &Gap) -> String {
        self.above = None;
        let until = gap.ended_at.map_or_else(|| "now".to_owned(), clock);
        let mut what = vec![(Tone::Plain, format!("{}, from {} to {until}", gap.explanation, clock(gap.began_at)))];
        if let Some(lost) = gap.lost {
            what.push((Tone::Plain, format!(", {} lost", counted(lost, "event"))));
        }
        if let Some(remedy) = &gap.remedy {
            what.push((Tone::Dim, format!("; {remedy}")));
        }
        let item = self.item(&gap.host_name, &gap.scope);
        self.lines(&clock(gap.ended_at.unwrap_or_else(now)), (Tone::Notable, "gap".to_owned()), item, what, None)
    }

    fn item(&self, host: &str, item: &str) -> Vec<Piece> {
        let host = if self.name_hosts { vec![(Tone::Dim, format!("{host} "))] } else { Vec::new() };
        host.into_iter().chain([(Tone::Heading, item.to_owned())]).collect()
    }

    /// One line where all fits or nobody's terminal limits it; what does not fit goes on beneath.
    fn lines(&self, at: &str, verdict: Piece, item: Vec<Piece>, what: Vec<Piece>, actor: Option<&Actor>) -> String {
        let actor: Vec<Piece> = actor.map(|actor| (Tone::Actor, actor.summary())).into_iter().collect();
        let width = |pieces: &[Piece]| pieces.iter().map(|(_, text)| visible(text).width()).sum::<usize>();
        let room = self.screen.width.map_or(usize::MAX, |columns| columns.saturating_sub(MARGIN + VERDICT));
        let item: Vec<Piece> = match item.as_slice() {
            [(tone, item)] => vec![(*tone, cut_middle(&visible(item), room))],
            _ => item,
        };
        let mut rows: Vec<Vec<Piece>> = vec![item];
        for part in [what, actor].into_iter().filter(|part| !part.is_empty()) {
            match rows.last_mut() {
                Some(row) if width(row) + GAP.len() + width(&part) <= room => {
                    row.push((Tone::Plain, GAP.to_owned()));
                    row.extend(part);
                }
                _ => rows.push(part),
            }
        }
        let mut heads = std::iter::once((at, verdict)).chain(std::iter::repeat(("", (Tone::Plain, String::new()))));
        let texts: Vec<String> = rows.iter().zip(&mut heads).map(|(row, (at, verdict))| self.row(at, verdict, row)).collect();
        texts.join("\n")
    }

    fn row(&self, at: &str, (tone, verdict): Piece, pieces: &[Piece]) -> String {
        let paint = self.screen.paint;
        let verdict = visible(&verdict);
        let mut room = self.screen.width.map_or(usize::MAX, |columns| columns.saturating_sub(MARGIN + VERDICT));
        let mut text = format!("{}{}", paint.text(Tone::Dim, at), " ".repeat(MARGIN.saturating_sub(at.width())));
        text.push_str(&paint.text(tone, &verdict));
        text.push_str(&" ".repeat(VERDICT.saturating_sub(verdict.width())));
        for (tone, piece) in pieces {
            let piece = visible(piece);
            let cut = cut_end(&piece, room);
            text.push_str(&paint.text(*tone, &cut));
            room = room.saturating_sub(piece.width());
            if room == 0 {
                break;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{Format, Paint};
    use serde_json::json;

    fn feed(width: Option<usize>) -> Feed {
        Feed::new(Screen { format: Format::Table, paint: Paint::PLAIN, width }, false)
    }

    fn change() -> Change {
        shape::read(&json!({
            "id": 9, "host_name": "web1", "item": "file:/etc/hosts", "kind": "modified", "verdict": "notable",
            "fields": [{"name": "size", "before": 180, "after": 188}],
            "observed_after": "2026-02-12T10:30:00Z", "observed_at": "2026-02-12T10:31:00Z", "received_at": "2026-02-12T10:31:00Z",
            "actor": {"certainty": "strong", "user": {"uid": 0, "name": "root"}, "process": {"pid": 812, "argv": ["tee", "-a", "/etc/hosts"]}}
        }))
        .unwrap()
    }

    fn drift(event: &str) -> Drift {
        shape::read(&json!({
            "id": 4, "host": "01890a5d-ac96-774b-bcce-b302099a8057", "host_name": "web1", "item": "file:/etc/hosts", "field": "size", "expected": 180, "actual": 188,
            "verdict": "notable", "severity": "info", "type": "functional", "state": "open", "change": 9, "event": event,
            "opened_at": "2026-02-12T10:31:00Z", "updated_at": "2026-02-12T10:31:00Z",
            "actor": {"certainty": "unknown", "reason": "the process had ended"}
        }))
        .unwrap()
    }

    #[test]
    fn a_change_says_when_how_grave_what_and_who_in_one_line_of_a_pipe() {
        assert_eq!(
            feed(None).change(&change()),
            "10:31:00  notable      file:/etc/hosts  size 180 → 188  root · tee -a /etc/hosts (pid 812)"
        );
    }

    #[test]
    fn a_narrow_terminal_takes_more_lines_and_none_is_too_wide() {
        let text = feed(Some(50)).change(&change());
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.width() <= 50), "{text}");
    }

    #[test]
    fn nothing_that_the_collector_says_moves_the_cursor() {
        let mut change = change();
        change.verdict = Some("\u{1b}[2Jnotable".to_owned());
        let mut drift = drift("\u{1b}[2Jopened");
        drift.verdict = "\u{1b}[2J".to_owned();
        let mut feed = feed(None);
        for text in [feed.drift(&drift), feed.change(&change), feed.drift(&drift)] {
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn a_drift_beneath_its_own_change_does_not_repeat_item_and_actor() {
        let mut feed = feed(None);
        let alone = feed.drift(&drift("opened"));
        assert!(alone.contains("file:/etc/hosts") && alone.contains("the process had ended"), "{alone}");
        feed.change(&change());
        let beneath = feed.drift(&drift("opened"));
        assert!(beneath.contains("drift 4 opened: size (info, functional)"), "{beneath}");
        assert!(!beneath.contains("/etc/hosts"), "{beneath}");
    }

    #[test]
    fn a_drift_names_its_item_again_when_another_line_came_between() {
        let other = |name: &str| {
            let mut drift = drift("opened");
            drift.item = name.parse().unwrap();
            drift.change = Some(8);
            drift
        };
        let mut feed = feed(None);
        feed.change(&change());
        feed.drift(&other("file:/etc/passwd"));
        let after = feed.drift(&drift("opened"));
        assert!(after.contains("file:/etc/hosts  drift 4 opened: size expected 180, is 188"), "{after}");
        // Explained by the change above, and yet of another item.
        let mut feed = self::feed(None);
        feed.change(&change());
        let mut stranger = other("sysctl:vm.swappiness");
        stranger.change = Some(9);
        let stranger = feed.drift(&stranger);
        assert!(stranger.contains("sysctl:vm.swappiness"), "{stranger}");
    }

    #[test]
    fn the_values_are_told_where_the_change_above_did_not_go_from_what_is_expected() {
        let mut feed = feed(None);
        feed.change(&change());
        let mut wrong_before = drift("opened");
        wrong_before.expected = Some(trueline_drift::Value::Integer(170));
        let text = feed.drift(&wrong_before);
        assert!(text.contains("drift 4 opened: size expected 170, is 188 (info, functional)"), "{text}");
    }

    #[test]
    fn an_item_that_came_or_went_is_told_in_words() {
        let exists = |event: &str| {
            let mut drift = drift(event);
            (drift.field, drift.expected, drift.actual) = ("exists".to_owned(), Some(false.into()), Some(true.into()));
            drift
        };
        let mut feed = feed(None);
        let mut created = change();
        created.kind = "created".to_owned();
        feed.change(&created);
        let opened = feed.drift(&exists("opened"));
        assert!(opened.contains("drift 4 opened: exists expected absent, is present (info, functional)"), "{opened}");
        let resolved = feed.drift(&exists("resolved"));
        assert!(resolved.contains("drift 4 resolved: is absent again"), "{resolved}");
    }
}
