//! A secret that is named as one among a process's arguments never comes out, whatever stands around it.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trueline_drift::redact::{arguments, free_text};

const SECRET: &str = "hunter2hunter2";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    form: Form,
    before: Vec<&'a str>,
    after: Vec<&'a str>,
    /// What stands before the secret's form within the same argument, as in `sh -c 'tool …'`.
    command: Option<&'a str>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Form {
    Option,
    OptionApart,
    Environment,
    Address,
    Header,
    Bearer,
}

fuzz_target!(|input: Input<'_>| {
    let everything = input.before.iter().chain(&input.after).chain(&input.command);
    if everything.into_iter().any(|text| text.contains(SECRET)) {
        return;
    }
    let mut argv: Vec<String> = ["tool"].iter().chain(&input.before).map(|text| (*text).to_owned()).collect();
    let form = match input.form {
        Form::Option => format!("--password={SECRET}"),
        Form::OptionApart => format!("--api-token {SECRET}"),
        Form::Environment => format!("PGPASSWORD={SECRET}"),
        Form::Address => format!("https://bob:{SECRET}@example.org/x"),
        Form::Header => format!("Authorization: Basic {SECRET}"),
        Form::Bearer => format!("Bearer {SECRET}"),
    };
    match (input.command, input.form) {
        // Words alone: what a shell would take for more, or what gives a value to a name, is another matter. So
        // is a secret of two words behind one that wants a secret of one.
        (Some(command), Form::Option | Form::OptionApart | Form::Environment | Form::Address) => {
            argv.push(format!("tool {} {form}", command.replace(|c| !is_of_word(c), " ")))
        }
        (None, Form::OptionApart) => argv.extend(form.split(' ').map(str::to_owned)),
        (_, _) => argv.push(form),
    }
    argv.extend(input.after.iter().map(|text| (*text).to_owned()));
    let masked = arguments(&argv);
    assert_eq!(masked.len(), argv.len());
    assert!(!masked.iter().any(|argument| argument.contains(SECRET)), "{argv:?} became {masked:?}");
    assert_eq!(arguments(&masked), masked, "masking twice is masking once");
    let line = argv.join(" ");
    assert!(free_text(&line).len() <= line.len() + 64 * (line.len() / 8 + 1));
});

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || "-_./ ".contains(c)
}
