//! Secrets in the arguments of one command.

use super::name::{is_harmless, is_switch, names_secret};
use super::tool::{Tool, known, known_command};
use super::{DEPTH, MASK, script, text};

/// What the next argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing that the one before it says.
    Open,
    /// A value, but no secret.
    Value,
    Secret,
    /// A secret, unless it looks like an option: the option before it may take no value.
    Likely,
    /// A name, the separator, and a secret.
    Pair(char),
}

struct Reader<'a> {
    arguments: &'a [String],
    depth: usize,
    tool: Option<&'static Tool>,
    /// The tool's rules hold for these arguments.
    is_meant: bool,
    /// One of the arguments to come may be a command.
    wraps: bool,
    /// The next argument is a program, or an assignment to its environment.
    expects_program: bool,
    next: Next,
    /// Positional arguments since each word that the tool's `after` names.
    since: Vec<(usize, usize)>,
    after_set: bool,
    masks_last: bool,
}

/// As many arguments, with what is secret in them masked.
pub(super) fn masked(arguments: &[String], depth: usize) -> Vec<String> {
    let mut reader = Reader {
        arguments,
        depth,
        tool: None,
        is_meant: false,
        wraps: false,
        expects_program: true,
        next: Next::Open,
        since: Vec::new(),
        after_set: false,
        masks_last: false,
    };
    let mut masked: Vec<String> = arguments.iter().map(|argument| reader.read(argument)).collect();
    if reader.masks_last
        && let Some(last) = masked.last_mut()
    {
        MASK.clone_into(last);
    }
    masked
}

/// Whether a command takes a secret from its standard input.
pub(super) fn reads_secret(words: &[String]) -> bool {
    let is_sudo = words.iter().any(|word| word == "sudo");
    let asks_sudo = |word: &String| is_sudo && word.starts_with('-') && !word.starts_with("--") && word.contains('S');
    let is_told = |word: &String| word.starts_with("--") && (word.ends_with("-stdin") || word.ends_with("-fd"));
    words.iter().any(|word| known_command(word).is_some_and(|tool| tool.reads) || is_told(word) || asks_sudo(word))
}

impl Reader<'_> {
    fn read(&mut self, argument: &str) -> String {
        match std::mem::replace(&mut self.next, Next::Open) {
            Next::Secret => return MASK.to_owned(),
            Next::Likely if !is_option(argument) => return MASK.to_owned(),
            Next::Pair(separator) => return self.pair(argument, separator),
            Next::Value => return self.running(argument),
            Next::Likely | Next::Open => {}
        }
        if self.expects_program {
            return self.program(argument);
        }
        if let Some(rest) = self.tool().and_then(|tool| tool.prefixes.iter().find(|prefix| is_longer(argument, prefix))) {
            return format!("{rest}{MASK}");
        }
        if matches!(argument, "-exec" | "-execdir" | "-ok" | "-okdir") {
            self.expects_program = true;
            return argument.to_owned();
        }
        if argument.len() > 1 && argument.starts_with('-') { self.option(argument) } else { self.positional(argument) }
    }

    /// The tool's rules, where they hold.
    fn tool(&self) -> Option<&'static Tool> {
        self.tool.filter(|_| self.is_meant)
    }

    fn program(&mut self, argument: &str) -> String {
        if let Some(masked) = assignment(argument) {
            return masked;
        }
        if is_assignment(argument) {
            return self.running(argument);
        }
        self.expects_program = false;
        self.follow(known(argument));
        self.wraps = self.tool.is_some_and(|tool| tool.wraps);
        self.running(argument)
    }

    fn follow(&mut self, tool: Option<&'static Tool>) {
        self.tool = tool;
        let word = tool.and_then(|tool| tool.only_with);
        self.is_meant = word.is_none_or(|word| self.arguments.iter().any(|argument| argument == word));
        self.since.clear();
        let own = tool.into_iter().flat_map(|tool| tool.after).filter(|(word, _)| word.is_empty());
        self.since.extend(own.map(|(_, number)| (*number, 0)));
    }

    fn option(&mut self, argument: &str) -> String {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        // What is glued to an option that sounds like a secret is one all the same.
        if value.is_none() && self.tool.is_some_and(|tool| tool.harmless.contains(&name)) {
            return argument.to_owned();
        }
        if let Some(tool) = self.tool() {
            let rule = if tool.long.contains(&name) {
                Some(Next::Secret)
            } else if tool.long_pair.contains(&name) {
                Some(Next::Pair(tool.separator))
            } else if tool.long_valued.contains(&name) {
                Some(Next::Value)
            } else {
                None
            };
            match (rule, value) {
                (Some(Next::Secret), Some(_)) => return format!("{name}={MASK}"),
                (Some(Next::Pair(separator)), Some(value)) => return format!("{name}={}", self.pair(value, separator)),
                (Some(Next::Value), Some(value)) => return format!("{name}={}", self.running(value)),
                (None, _) => {}
                (Some(next), _) => {
                    self.next = next;
                    return argument.to_owned();
                }
            }
            if !argument.starts_with("--")
                && let Some(masked) = self.letters(tool, argument)
            {
                return masked;
            }
        }
        if let Some(masked) = assignment(argument) {
            return masked;
        }
        if value.is_none() && names_secret(name) && !is_switch(name) && argument.len() > 2 && !name.contains(char::is_whitespace) {
            self.next = Next::Likely;
            return argument.to_owned();
        }
        self.running(argument)
    }

    /// Short options, several behind one dash; `None` where no rule speaks of them.
    fn letters(&mut self, tool: &Tool, argument: &str) -> Option<String> {
        for (at, letter) in argument.char_indices().skip(1) {
            let end = at + letter.len_utf8();
            let (head, rest) = argument.split_at(end);
            self.masks_last |= tool.last_with == Some(letter);
            let next = if tool.short.contains(letter) {
                Next::Secret
            } else if tool.pair.contains(letter) {
                Next::Pair(tool.separator)
            } else if tool.glued.contains(letter) {
                return (!rest.is_empty()).then(|| format!("{head}{MASK}"));
            } else if tool.valued.contains(letter) {
                if rest.is_empty() {
                    self.next = Next::Value;
                }
                return None;
            } else if letter.is_ascii_alphanumeric() {
                continue;
            } else {
                return None;
            };
            if rest.is_empty() {
                self.next = next;
                return Some(argument.to_owned());
            }
            return Some(match next {
                Next::Pair(separator) => format!("{head}{}", self.pair(rest, separator)),
                _ => format!("{head}{MASK}"),
            });
        }
        None
    }

    fn positional(&mut self, argument: &str) -> String {
        let mut is_secret = false;
        for (number, count) in &mut self.since {
            *count += 1;
            is_secret |= count == number;
        }
        if is_secret && !is_assignment(argument) {
            return MASK.to_owned();
        }
        if let Some(masked) = assignment(argument) {
            return masked;
        }
        if self.wraps {
            let inner = known_command(argument);
            // A wrapper's own options end with its first word, but for one that has commands of its own.
            if inner.is_some() || self.tool.is_some_and(|tool| tool.only_with.is_none()) {
                self.follow(inner);
            }
            self.wraps = inner.is_none_or(|tool| tool.wraps);
        }
        let tool = self.tool();
        for (word, number) in tool.into_iter().flat_map(|tool| tool.after) {
            if *word == argument {
                self.since.push((*number, 0));
            }
        }
        let names_next = self.after_set || tool.is_some_and(|tool| tool.names_values);
        if names_next && !argument.contains('=') && names_secret(argument) {
            self.next = Next::Secret;
        }
        self.after_set = argument == "set" || (self.after_set && is_option(argument));
        self.running(argument)
    }

    fn pair(&self, argument: &str, separator: char) -> String {
        match argument.split_once(separator) {
            Some((name, secret)) if !secret.is_empty() => format!("{}{separator}{MASK}", text::masked(name)),
            _ => text::masked(argument).into_owned(),
        }
    }

    fn running(&self, argument: &str) -> String {
        let is_script = self.depth < DEPTH && (argument.contains(char::is_whitespace) || argument.contains("\\x0"));
        if is_script {
            return text::masked(&script::masked(argument, self.depth + 1)).into_owned();
        }
        text::masked(argument).into_owned()
    }
}

fn is_longer(argument: &str, prefix: &str) -> bool {
    argument.len() > prefix.len() && argument.starts_with(prefix)
}

/// `-x`, `--word`, `--two-words=...`: rather another option than a secret that begins with a dash.
fn is_option(argument: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    match argument.strip_prefix("--") {
        Some(long) => long.is_empty() || is_word(long.split('=').next().unwrap_or(long)),
        None => argument.len() == 2 && argument.starts_with('-') && argument.as_bytes()[1].is_ascii_alphabetic(),
    }
}

fn name_of(argument: &str) -> Option<(&str, &str)> {
    let (name, value) = argument.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+'));
    is_name.then_some((name, value))
}

fn is_assignment(argument: &str) -> bool {
    name_of(argument).is_some_and(|(name, _)| !name.starts_with('-'))
}

/// An argument that is nothing but a name and its secret.
fn assignment(argument: &str) -> Option<String> {
    let (name, value) = name_of(argument)?;
    (names_secret(name) && !is_harmless(name, value)).then(|| format!("{name}={MASK}"))
}
