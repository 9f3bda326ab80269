//! Manual pages: one for each command and subcommand, its options from its definition and the other sections from
//! [`words`].

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::Program;
use crate::words::{self, Words};

/// Writes every page of a program; how many there are.
pub fn write(program: &Program, date: &str, folder: &Path) -> anyhow::Result<usize> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut root = without_help(program.command.clone());
    root.build();
    let mut pages = 0;
    pages_of(&root, None, program.section, date, &mut |name, text| {
        let path = folder.join(format!("{name}.{}", program.section));
        pages += 1;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    })?;
    Ok(pages)
}

/// `help` is a word of the command line, not a command with a page.
fn without_help(command: Command) -> Command {
    let command = command.disable_help_subcommand(true);
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, without_help))
}

fn pages_of(
    command: &Command,
    parent: Option<&str>,
    section: u8,
    date: &str,
    write: &mut impl FnMut(&str, Vec<u8>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = match parent {
        Some(parent) => format!("{parent}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    let text = page(command, &name, parent, section, date).with_context(|| format!("rendering {name}({section})"))?;
    write(&name, text)?;
    command.get_subcommands().try_for_each(|command| pages_of(command, Some(&name), section, date, write))
}

fn page(command: &Command, name: &str, parent: Option<&str>, section: u8, date: &str) -> io::Result<Vec<u8>> {
    let source = format!("trueline {}", env!("CARGO_PKG_VERSION"));
    let man =
        Man::new(command.clone()).title(name.to_uppercase()).section(section.to_string()).date(date).source(source).manual("Trueline");
    let words = words::of(name);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    synopsis(command, &mut out)?;
    man.render_description_section(&mut out)?;
    paragraphs(&words, &mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    lists(command, &words, &mut out)?;
    see_also(&words, parent, section, &mut out)?;
    Ok(tidy(&String::from_utf8_lossy(&out)).into_bytes())
}

/// As `--help` has it.
fn synopsis(command: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    for (at, line) in usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        if at > 0 {
            roff.control("br", []);
        }
        roff.text([roman(line)]);
    }
    roff.to_writer(out)
}

/// Without what formatters pass over and warn of: breaks beside a space, paragraphs at a section's head, blanks at the end of
/// a line; with the request for an empty line, and the definition of the apostrophe once.
fn tidy(page: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in page.lines().map(|line| if line.trim().is_empty() { ".sp" } else { line.trim_end() }) {
        let is_definition = line.starts_with(".ie ") || line.starts_with(".el ");
        if !(is_definition && lines.contains(&line)) {
            lines.push(line);
        }
    }
    let is_idle = |at: usize| match lines[at] {
        ".br" => (at > 0 && lines[at - 1] == ".sp") || lines.get(at + 1) == Some(&".sp"),
        ".PP" => at > 0 && lines[at - 1].starts_with(".SH"),
        _ => false,
    };
    let kept = (0..lines.len()).filter(|at| !is_idle(*at)).map(|at| lines[at]);
    kept.fold(String::with_capacity(page.len()), |text, line| text + line + "\n")
}

/// More of the description, after what the help says.
fn paragraphs(words: &Words, out: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for text in words.description {
        roff.control("PP", []).text([roman(*text)]);
    }
    roff.to_writer(out)
}

fn lists(command: &Command, words: &Words, out: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    let owned = |entries: &[(&str, &str)]| entries.iter().map(|(term, meaning)| ((*term).to_owned(), (*meaning).to_owned())).collect();
    let mut environment: Vec<(String, String)> = command.get_arguments().filter_map(variable).collect();
    environment.extend::<Vec<_>>(owned(words.environment));
    let sections: [(&str, Vec<(String, String)>); 4] = [
        ("EXIT STATUS", owned(words.exit_status)),
        ("SIGNALS", owned(words.signals)),
        ("ENVIRONMENT", environment),
        ("FILES", owned(words.files)),
    ];
    for (heading, entries) in sections {
        if entries.is_empty() {
            continue;
        }
        roff.control("SH", [heading]);
        for (term, meaning) in entries {
            roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
        }
    }
    if !words.examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        for (purpose, line) in words.examples {
            roff.control("PP", []).text([roman(*purpose)]);
            roff.control("RS", ["4"]).control("nf", []).text([roman(*line)]).control("fi", []).control("RE", []);
        }
    }
    roff.to_writer(out)
}

/// The variable that stands in for an option.
fn variable(argument: &clap::Arg) -> Option<(String, String)> {
    let name = argument.get_env()?.to_string_lossy().into_owned();
    Some((name, format!("Taken where --{} is not given.", argument.get_long()?)))
}

fn see_also(words: &Words, parent: Option<&str>, section: u8, out: &mut Vec<u8>) -> io::Result<()> {
    let mut pages: Vec<(String, String)> = parent.iter().map(|parent| ((*parent).to_owned(), section.to_string())).collect();
    pages.extend(words.see_also.iter().map(|(name, section)| ((*name).to_owned(), (*section).to_owned())));
    let mut line: Vec<Inline> = Vec::new();
    for (at, (name, section)) in pages.into_iter().enumerate() {
        if at > 0 {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({section})"))]);
    }
    if line.is_empty() {
        return Ok(());
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]).text(line);
    roff.to_writer(out)
}
