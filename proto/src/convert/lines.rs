//! Differing lines between wire and domain.

use trueline_drift::format::lines::{BYTES_LIMIT, LINES_LIMIT, Line, Lines, Side};

use super::{ConvertError, missing, numbered};
use crate::v1;

numbered!(side_to_wire, side_from_wire, "side of a line", Side, v1::Side, { Removed, Added });

impl From<Lines> for v1::Lines {
    fn from(lines: Lines) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let line = |line: Line| v1::Line { side: side_to_wire(line.side).into(), number: count(line.number), text: line.text };
        Self {
            told: lines.told.into_iter().take(LINES_LIMIT).map(line).collect(),
            removed: count(lines.removed),
            added: count(lines.added),
            is_smallest: lines.is_smallest,
        }
    }
}

impl TryFrom<v1::Lines> for Lines {
    type Error = ConvertError;

    fn try_from(lines: v1::Lines) -> Result<Self, ConvertError> {
        if lines.told.len() > LINES_LIMIT {
            return Err(ConvertError::TooLong { what: "list of lines", limit: LINES_LIMIT });
        }
        if lines.told.iter().map(|line| line.text.len()).sum::<usize>() > BYTES_LIMIT {
            return Err(ConvertError::TooLong { what: "text of lines", limit: BYTES_LIMIT });
        }
        let line = |line: v1::Line| {
            if line.number == 0 {
                return Err(missing("number of a line"));
            }
            Ok(Line { side: side_from_wire(line.side)?, number: line.number as usize, text: line.text })
        };
        Ok(Self {
            told: lines.told.into_iter().map(line).collect::<Result<_, _>>()?,
            removed: lines.removed as usize,
            added: lines.added as usize,
            is_smallest: lines.is_smallest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Lines {
        let line = |side, number, text: &str| Line { side, number, text: text.to_owned() };
        Lines { told: vec![line(Side::Removed, 3, "port \\x1b 1"), line(Side::Added, 4, "")], removed: 2, added: 7, is_smallest: true }
    }

    #[test]
    fn lines_come_back_as_they_went() {
        for lines in [whole(), Lines::default()] {
            assert_eq!(Lines::try_from(v1::Lines::from(lines.clone())).unwrap(), lines);
        }
    }

    #[test]
    fn more_than_are_told_and_what_no_agent_tells_is_refused() {
        let refused = |damage: fn(&mut v1::Lines)| {
            let mut wire = v1::Lines::from(whole());
            damage(&mut wire);
            Lines::try_from(wire).unwrap_err().to_string()
        };
        assert_eq!(refused(|wire| wire.told = vec![wire.told[0].clone(); LINES_LIMIT + 1]), "list of lines is longer than 64");
        assert_eq!(refused(|wire| wire.told[0].text = "x".repeat(BYTES_LIMIT + 1)), "text of lines is longer than 16384");
        assert_eq!(refused(|wire| wire.told[0].side = 0), "side of a line is missing");
        assert_eq!(refused(|wire| wire.told[1].number = 0), "number of a line is missing");
    }
}
