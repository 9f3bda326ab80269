//! Shell text: split into commands and words, so that what is known of programs holds for those that a
//! text runs. Everything but masked words stays as it was written.
//!
//! It is split simply: quotes, backslashes, separators, pipes, `$( )` and backquotes. A text that a shell
//! would read otherwise is at worst masked too much or by the rules of running text alone.

use std::ops::Range;

use super::{MASK, argv};

#[derive(Debug)]
struct Word {
    /// In the text, with its quotes.
    raw: Range<usize>,
    text: String,
    is_quoted: bool,
}

/// What stands between words.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Mark {
    End,
    Pipe,
    Open,
    Close,
    /// `` ` ``, which opens and closes.
    Back,
    /// `<<<`: the next word is what the command reads.
    Here,
}

#[derive(Debug)]
enum Token {
    Word(Word),
    Mark(Mark),
}

#[derive(Debug, Default)]
struct Command {
    words: Vec<Word>,
    here: Vec<Word>,
    awaits_here: bool,
}

/// Masks what is secret in the commands of a shell text.
pub(super) fn masked(text: &str, depth: usize) -> String {
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    // A command in `$( )` is part of a word of the one around it.
    let mut open: Vec<(Option<Mark>, Vec<Command>)> = vec![(None, vec![Command::default()])];
    for token in split(text) {
        let Some((opened_by, pipeline)) = open.last_mut() else { break };
        let opened_by = *opened_by;
        match token {
            Token::Word(word) => {
                if let Some(command) = pipeline.last_mut() {
                    let place = if std::mem::take(&mut command.awaits_here) { &mut command.here } else { &mut command.words };
                    place.push(word);
                }
            }
            Token::Mark(Mark::Here) => pipeline.iter_mut().last().into_iter().for_each(|command| command.awaits_here = true),
            Token::Mark(Mark::Pipe) => pipeline.push(Command::default()),
            Token::Mark(Mark::End) => finish(text, &std::mem::replace(pipeline, vec![Command::default()]), depth, &mut edits),
            Token::Mark(mark @ (Mark::Close | Mark::Back)) if opened_by.is_some_and(|by| (by == Mark::Back) == (mark == Mark::Back)) => {
                if let Some((_, inner)) = open.pop() {
                    finish(text, &inner, depth, &mut edits);
                }
            }
            Token::Mark(Mark::Close) => {}
            Token::Mark(mark) => open.push((Some(mark), vec![Command::default()])),
        }
    }
    for (_, pipeline) in open {
        finish(text, &pipeline, depth, &mut edits);
    }
    if edits.is_empty() {
        return text.to_owned();
    }
    edits.sort_by_key(|(raw, _)| raw.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (raw, new) in edits {
        out.push_str(&text[at..raw.start]);
        out.push_str(&new);
        at = raw.end;
    }
    out.push_str(&text[at..]);
    out
}

fn finish(text: &str, pipeline: &[Command], depth: usize, edits: &mut Vec<(Range<usize>, String)>) {
    let lines: Vec<Vec<String>> = pipeline.iter().map(|command| command.words.iter().map(|word| word.text.clone()).collect()).collect();
    // What takes a secret may take it from any command before it.
    let reader = lines.iter().rposition(|words| argv::reads_secret(words));
    for (at, (command, words)) in pipeline.iter().zip(&lines).enumerate() {
        let mut masked = argv::masked(words, depth);
        let feeds = words.first().is_some_and(|word| matches!(word.as_str(), "echo" | "printf"));
        if feeds && reader.is_some_and(|reader| at < reader) {
            masked.iter_mut().skip(1).filter(|word| !is_plain_option(word)).for_each(|word| MASK.clone_into(word));
        }
        // SQL: PASSWORD 'x', IDENTIFIED BY 'x'.
        for at in 1..words.len() {
            let keyword = words[at - 1].to_ascii_lowercase();
            let is_declared = keyword == "password" || (keyword == "by" && at > 1 && words[at - 2].eq_ignore_ascii_case("identified"));
            if is_declared && command.words[at].is_quoted {
                MASK.clone_into(&mut masked[at]);
            }
        }
        for (word, masked) in command.words.iter().zip(masked).filter(|(word, masked)| word.text != *masked) {
            edits.push((word.raw.clone(), requote(&masked, &text[word.raw.clone()])));
        }
        if argv::reads_secret(words) {
            edits.extend(command.here.iter().filter(|word| word.text != MASK).map(|word| (word.raw.clone(), MASK.to_owned())));
        }
    }
}

fn is_plain_option(word: &str) -> bool {
    word.len() <= 3 && word.starts_with('-')
}

/// The word so that it reads back as itself, in the quotes that it had where that can be.
fn requote(word: &str, raw: &str) -> String {
    if !word.contains([' ', '\t', '\n', '\r', '\'', '"', '\\', ';', '&', '|', '(', ')', '<', '>', '`', '$']) {
        return word.to_owned();
    }
    let is_literal_in_double = !word.contains(['"', '\\', '`', '$']);
    match (word.contains('\''), is_literal_in_double) {
        (false, true) if raw.starts_with('"') => format!("\"{word}\""),
        (false, _) => format!("'{word}'"),
        (true, true) => format!("\"{word}\""),
        (true, false) => MASK.to_owned(),
    }
}

/// One character of the text before it was escaped (see [`crate::text`]), and how long it is now.
enum Unit {
    Backslash(usize),
    NewLine(usize),
    Blank(usize),
    Other(char, usize),
}

fn unit(rest: &str) -> Option<Unit> {
    let first = rest.chars().next()?;
    Some(match first {
        '\n' | '\r' => Unit::NewLine(1),
        ' ' | '\t' => Unit::Blank(1),
        '\\' if rest.starts_with("\\x0a") || rest.starts_with("\\x0d") => Unit::NewLine(4),
        '\\' if rest.starts_with("\\x09") => Unit::Blank(4),
        '\\' if rest.starts_with("\\\\") => Unit::Backslash(2),
        '\\' => Unit::Backslash(1),
        other => Unit::Other(other, other.len_utf8()),
    })
}

impl Unit {
    fn length(&self) -> usize {
        match self {
            Self::Backslash(length) | Self::NewLine(length) | Self::Blank(length) | Self::Other(_, length) => *length,
        }
    }
}

/// Takes words from the text as a shell would.
struct Splitter<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    /// Where the word at hand begins.
    start: Option<usize>,
    word: String,
    is_quoted: bool,
}

fn split(text: &str) -> Vec<Token> {
    let mut splitter = Splitter { text, tokens: Vec::new(), start: None, word: String::new(), is_quoted: false };
    let mut at = 0;
    while let Some(unit) = unit(&text[at..]) {
        let next = at + unit.length();
        at = match unit {
            Unit::Blank(_) => splitter.end_word(at, next),
            Unit::NewLine(_) => splitter.mark(Mark::End, at, next),
            Unit::Backslash(_) => splitter.escape(at, next),
            Unit::Other(quote @ ('\'' | '"'), _) => splitter.quote(quote, at, next),
            Unit::Other(';' | '&', _) => splitter.mark(Mark::End, at, next),
            Unit::Other('|', _) if text[next..].starts_with('|') => splitter.mark(Mark::End, at, next + 1),
            Unit::Other('|', _) => splitter.mark(Mark::Pipe, at, next),
            Unit::Other('(', _) => splitter.mark(Mark::Open, at, next),
            Unit::Other(')', _) => splitter.mark(Mark::Close, at, next),
            Unit::Other('`', _) => splitter.mark(Mark::Back, at, next),
            Unit::Other('<', _) if text[next..].starts_with("<<") => splitter.mark(Mark::Here, at, next + 2),
            Unit::Other('<' | '>', _) => splitter.end_word(at, next),
            Unit::Other(c, _) => {
                splitter.start.get_or_insert(at);
                splitter.word.push(c);
                next
            }
        };
    }
    splitter.end_word(text.len(), text.len());
    splitter.tokens
}

impl Splitter<'_> {
    fn end_word(&mut self, at: usize, next: usize) -> usize {
        if let Some(start) = self.start.take() {
            let word = Word { raw: start..at, text: std::mem::take(&mut self.word), is_quoted: std::mem::take(&mut self.is_quoted) };
            self.tokens.push(Token::Word(word));
        }
        next
    }

    fn mark(&mut self, mark: Mark, at: usize, next: usize) -> usize {
        self.end_word(at, next);
        self.tokens.push(Token::Mark(mark));
        next
    }

    /// The character after a backslash stands for itself; a line's end joins two lines.
    fn escape(&mut self, at: usize, next: usize) -> usize {
        self.start.get_or_insert(at);
        let Some(escaped) = unit(&self.text[next..]) else { return next };
        let end = next + escaped.length();
        if !matches!(escaped, Unit::NewLine(_)) {
            self.word.push_str(&self.text[next..end]);
        }
        end
    }

    fn quote(&mut self, quote: char, at: usize, next: usize) -> usize {
        self.start.get_or_insert(at);
        self.is_quoted = true;
        let mut at = next;
        while let Some(unit) = unit(&self.text[at..]) {
            let end = at + unit.length();
            match unit {
                Unit::Other(c, _) if c == quote => return end,
                Unit::Backslash(_) if quote == '"' && self.text[end..].starts_with(['"', '$', '`']) => {
                    self.word.push_str(&self.text[end..end + 1]);
                    at = end + 1;
                }
                _ => {
                    self.word.push_str(&self.text[at..end]);
                    at = end;
                }
            }
        }
        at
    }
}
