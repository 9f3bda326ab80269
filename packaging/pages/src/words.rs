//! What the definitions of the commands do not say, by the name of the page: environment, files, exit status, signals,
//! examples, and where to read on.
//!
//! Each sentence must be true of the program; a page that is not named here has nothing to add.

/// A word and what it means.
type Entry = (&'static str, &'static str);

#[derive(Debug, Clone, Copy, Default)]
pub struct Words {
    /// Paragraphs after the description.
    pub description: &'static [&'static str],
    pub environment: &'static [Entry],
    pub files: &'static [Entry],
    pub exit_status: &'static [Entry],
    pub signals: &'static [Entry],
    /// What for, and what to type.
    pub examples: &'static [Entry],
    /// Name and section.
    pub see_also: &'static [Entry],
}

const NONE: Words = Words { description: &[], environment: &[], files: &[], exit_status: &[], signals: &[], examples: &[], see_also: &[] };

/// The words of a page; of a subcommand at least its program's exit status.
pub fn of(page: &str) -> Words {
    let found = PAGES.iter().find(|(name, _)| *name == page).map_or(NONE, |(_, words)| *words);
    let inherited = match page {
        _ if !found.exit_status.is_empty() => found.exit_status,
        page if page.starts_with("trueline-agent") => AGENT_EXIT,
        page if page.starts_with("trueline-collector") => COLLECTOR_EXIT,
        _ => OPERATOR_EXIT,
    };
    Words { exit_status: inherited, ..found }
}

const LOG: Entry = ("RUST_LOG", "What is logged: error, warn, info (the default), debug or trace.");

const AGENT_CONFIG: Entry =
    ("/etc/trueline/agent.toml", "Configuration; every key has a default and stands in the packaged file with its meaning.");
const AGENT_DATA: Entry = (
    "/var/lib/trueline-agent",
    "Key and certificate, what was last read of each item, and what the collector does not have yet. Of the agent's user alone.",
);
const ENROLL_ENV: Entry = (
    "/etc/trueline/enroll.env",
    "TRUELINE_COLLECTOR, TRUELINE_JOIN_TOKEN and TRUELINE_CA_SHA256 for the service's first start, one to a line. Mode 0600: it holds a token.",
);
const AGENT_EXIT: &[Entry] = &[("0", "Done, or stopped by a signal."), ("1", "Failed; standard error says why."), ("2", "Wrong usage.")];

const COLLECTOR_CONFIG: Entry = (
    "/etc/trueline/collector.toml",
    "Configuration, the same for the service and for commands by hand; every key stands in the packaged file with its meaning. A PostgreSQL address (database) holds a password: keep the mode 0640, root and the group trueline-collector.",
);
const COLLECTOR_ENV: Entry = (
    "/etc/trueline/collector.env",
    "TRUELINE_DATABASE for the service alone, over the configuration. Commands by hand do not read it: better name the database in collector.toml.",
);
const COLLECTOR_DATA: Entry = (
    "/var/lib/trueline-collector",
    "The CA (ca/root.key: keep a copy in a safe place) and, unless another is configured, the SQLite database. Of the collector's user alone.",
);
const COLLECTOR_EXIT: &[Entry] = &[
    ("0", "Done, or stopped by a signal."),
    ("1", "Failed; standard error says why."),
    ("2", "Wrong usage."),
    ("78", "The configuration cannot work: starting again does not mend it."),
];
const AS_OWNER: &str =
    "Root that runs this on a data directory of another user becomes that user first, so that the service can read what is made.";

const OPERATOR_EXIT: &[Entry] = &[
    ("0", "Fine."),
    ("1", "There is drift, or the collector or the host said no."),
    ("2", "Wrong usage."),
    ("3", "The collector cannot be reached."),
];
const CONTEXT_VARIABLE: Entry = ("TRUELINE_CONTEXT", "The context file, where --context does not name it.");

const PAGES: &[(&str, Words)] = &[
    (
        "trueline-agent",
        Words {
            description: &[
                "An event of the kernel is only a reason to look again: what is reported was read from the item itself. What may have been missed is reported as a coverage gap and read again.",
                "watch, scan and check-coverage need no collector. As root the process behind each change is named; an ordinary user sees what that user may read.",
            ],
            environment: &[LOG],
            files: &[AGENT_CONFIG, ENROLL_ENV, AGENT_DATA],
            see_also: &[("trueline-collector", "8"), ("trueline", "1"), ("fanotify", "7"), ("inotify", "7")],
            ..NONE
        },
    ),
    (
        "trueline-agent-run",
        Words {
            description: &[
                "This is what trueline-agent.service runs. Changes are kept on disk until the collector has acknowledged them.",
                "With an identity the variables are ignored.",
            ],
            environment: &[
                ("TRUELINE_COLLECTOR", "The collector's enrolment, HOST:9441, for a host without an identity."),
                ("TRUELINE_JOIN_TOKEN", "A join token."),
                ("TRUELINE_CA_SHA256", "SHA-256 of the collector's CA certificate."),
                LOG,
            ],
            files: &[AGENT_CONFIG, ENROLL_ENV, AGENT_DATA],
            exit_status: &[
                ("0", "Stopped by a signal."),
                ("1", "Failed; the log says why."),
                ("2", "Wrong usage."),
                ("78", "Not enrolled and no way to enrol, or refused for good: starting again does not mend it."),
            ],
            signals: &[
                ("SIGTERM, SIGINT", "What was seen is kept, and sent where that takes seconds; then it ends."),
                ("SIGHUP", "The configuration is read again; one with faults is refused and the present one stays."),
            ],
            see_also: &[("systemctl", "1"), ("journalctl", "1")],
            ..NONE
        },
    ),
    (
        "trueline-agent-enroll",
        Words {
            description: &[
                "The key is made on this host and stays on it. The token travels over TLS, to nobody but the holder of the CA whose digest is given.",
                AS_OWNER,
            ],
            files: &[AGENT_CONFIG, AGENT_DATA],
            examples: &[(
                "With a token made by trueline tokens create --kind join and the digest that trueline-collector ca prints:",
                "trueline-agent enroll --collector collector.example:9441 --token TOKEN --ca-sha256 HEX",
            )],
            see_also: &[("trueline-collector-ca", "8"), ("trueline-tokens-create", "1")],
            ..NONE
        },
    ),
    (
        "trueline-agent-status",
        Words {
            exit_status: &[("0", "Healthy."), ("1", "In trouble, or not running."), ("2", "Wrong usage.")],
            files: &[("/run/trueline-agent/status.sock", "Where the running agent answers, to root and its own user.")],
            ..NONE
        },
    ),
    (
        "trueline-agent-watch",
        Words {
            description: &["Changes go to standard output, everything else to standard error. Nothing is kept."],
            examples: &[("Who changes anything in /etc/ssh, until Ctrl-C:", "trueline-agent watch /etc/ssh")],
            ..NONE
        },
    ),
    (
        "trueline-agent-scan",
        Words {
            description: &[
                "Devices and FIFOs are listed, never opened. What could not be read stands there with the reason in place of the value.",
            ],
            examples: &[("Two inventories that can be compared:", "trueline-agent scan /etc | sort > inventory.txt")],
            ..NONE
        },
    ),
    (
        "trueline-agent-check-coverage",
        Words {
            description: &[
                "A process of its own makes each change, in a canary folder that is removed at the end. One kernel setting is written with the value that it has; what is mounted, nobody else sees.",
            ],
            exit_status: &[
                ("0", "The sensor that would be used here sees every kind of change that an event tells of."),
                ("1", "It misses something."),
                ("2", "Wrong usage."),
            ],
            ..NONE
        },
    ),
    (
        "trueline-collector",
        Words {
            environment: &[LOG],
            files: &[COLLECTOR_CONFIG, COLLECTOR_DATA],
            see_also: &[("trueline-agent", "8"), ("trueline", "1")],
            ..NONE
        },
    ),
    (
        "trueline-collector-serve",
        Words {
            description: &[
                "This is what trueline-collector.service runs, as an ordinary user. It listens for agents (9440, mutual TLS), for enrolment (9441) and, on loopback unless it has a certificate, for REST and the console (8089).",
                "While the database is away, records wait with the agents; it goes on by itself when the database is back.",
            ],
            environment: &[LOG],
            files: &[COLLECTOR_CONFIG, COLLECTOR_ENV, COLLECTOR_DATA],
            signals: &[
                ("SIGTERM, SIGINT", "Connections end, what was taken in is committed where the database answers, then it ends."),
                (
                    "SIGHUP",
                    "The watch policy is read again, from where the configuration now says; one with faults is refused and the present one stays.",
                ),
            ],
            see_also: &[("systemctl", "1"), ("journalctl", "1")],
            ..NONE
        },
    ),
    (
        "trueline-collector-migrate",
        Words {
            description: &["serve does the same at its start. A database that a newer program has used is refused.", AS_OWNER],
            files: &[COLLECTOR_CONFIG],
            ..NONE
        },
    ),
    (
        "trueline-collector-token",
        Words {
            description: &["For the first token; from then on trueline tokens create makes them over REST.", AS_OWNER],
            files: &[COLLECTOR_CONFIG, COLLECTOR_DATA],
            examples: &[
                ("A token for one host, good for an hour:", "trueline-collector token --kind join --name web1 --uses 1 --expires 1h"),
                ("The first administrator's:", "trueline-collector token --kind api --role admin --name ops"),
            ],
            see_also: &[("trueline-tokens-create", "1"), ("trueline-agent-enroll", "8")],
            ..NONE
        },
    ),
    (
        "trueline-collector-ca",
        Words {
            description: &["The CA is made where there is none yet.", AS_OWNER],
            files: &[COLLECTOR_DATA],
            examples: &[("The digest alone:", "trueline-collector ca | tail -1")],
            see_also: &[("trueline-agent-enroll", "8")],
            ..NONE
        },
    ),
    (
        "trueline",
        Words {
            description: &[
                "The collector and a token come from a context file; the first of these that is there is taken: --context, $TRUELINE_CONTEXT, ./.trueline/context.toml, ~/.config/trueline/context.toml.",
            ],
            environment: &[
                CONTEXT_VARIABLE,
                ("XDG_CONFIG_HOME", "The user's configuration folder, where it is not ~/.config."),
                ("NO_COLOR", "Set to anything: no colours."),
            ],
            files: &[
                ("./.trueline", "What trueline quickstart keeps, a context file among it."),
                (
                    "~/.config/trueline/context.toml",
                    "url, token, and ca (a PEM file) where the collector's certificate is not of a public authority. Mode 0600.",
                ),
            ],
            examples: &[
                ("Everything on this machine, to try it:", "trueline quickstart"),
                ("What departs from its baseline, and who did it:", "trueline drift list"),
                ("In a script:", "trueline check web1 || echo 'web1 has drifted'"),
            ],
            see_also: &[("trueline-agent", "8"), ("trueline-collector", "8")],
            ..NONE
        },
    ),
    (
        "trueline-quickstart",
        Words {
            description: &[
                "A second run goes on with the same host, history and baseline. As root the process behind each change is named.",
            ],
            environment: &[("TRUELINE_LOG", "What is logged to quickstart.log: error, warn, info (the default), debug, trace.")],
            files: &[("./.trueline", "Everything that it keeps; remove it to forget all of it.")],
            see_also: &[("trueline-drift-list", "1"), ("trueline-changes-list", "1")],
            ..NONE
        },
    ),
    (
        "trueline-check",
        Words {
            description: &["A host that is silent, revoked, without a baseline, or not whole known is not called compliant."],
            exit_status: &[
                ("0", "The host agrees with its baseline."),
                ("1", "It does not, or that cannot be said."),
                ("2", "Wrong usage."),
                ("3", "The collector cannot be reached."),
            ],
            see_also: &[("trueline-drift-list", "1")],
            ..NONE
        },
    ),
    ("trueline-baseline", Words { see_also: &[("trueline-check", "1"), ("trueline-drift", "1")], ..NONE }),
    (
        "trueline-baseline-apply",
        Words {
            examples: &[(
                "Check a document, then hold a host against it:",
                "trueline baseline lint web.yaml && trueline baseline apply web.yaml --host web1",
            )],
            see_also: &[("trueline-baseline-lint", "1"), ("trueline-baseline-show", "1")],
            ..NONE
        },
    ),
    (
        "trueline-drift-list",
        Words {
            examples: &[("What is critical, on every host, for a program:", "trueline drift list --severity critical --all --output json")],
            see_also: &[("trueline-changes-list", "1"), ("trueline-check", "1")],
            ..NONE
        },
    ),
    (
        "trueline-changes-list",
        Words {
            examples: &[("What changed on a host in the last quarter of an hour:", "trueline changes list --host web1 --since 15m")],
            see_also: &[("trueline-drift-list", "1")],
            ..NONE
        },
    ),
    (
        "trueline-sessions-list",
        Words {
            examples: &[
                ("Who is logged in on a host:", "trueline sessions list --host web1 --open"),
                ("What one of them changed:", "trueline changes list --session 3f2a9c01d4e7-42"),
            ],
            see_also: &[("trueline-changes-list", "1")],
            ..NONE
        },
    ),
    (
        "trueline-transactions-list",
        Words {
            examples: &[
                ("What ran on a host today:", "trueline transactions list --host web1 --since 24h"),
                ("What one of them changed:", "trueline changes list --transaction apt-9c41d0e2a7f35b18"),
            ],
            see_also: &[("trueline-transactions-show", "1"), ("trueline-changes-list", "1")],
            ..NONE
        },
    ),
    (
        "trueline-tokens-create",
        Words {
            examples: &[("A token for one host to join with:", "trueline tokens create --kind join --name web1")],
            see_also: &[("trueline-agent-enroll", "8"), ("trueline-collector-token", "8")],
            ..NONE
        },
    ),
];

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn names(command: &Command, parent: Option<&str>, into: &mut Vec<String>) {
        let name = parent.map_or_else(|| command.get_name().to_owned(), |parent| format!("{parent}-{}", command.get_name()));
        command.get_subcommands().for_each(|command| names(command, Some(&name), into));
        into.push(name);
    }

    #[test]
    fn every_entry_and_every_reference_names_a_command_that_is_there() {
        let mut there = Vec::new();
        crate::programs().iter().for_each(|program| names(&program.command, None, &mut there));
        for (page, words) in PAGES {
            assert!(there.iter().any(|name| name == page), "{page} is no command");
            for (name, section) in words.see_also.iter().filter(|(name, _)| name.starts_with("trueline")) {
                let expected = if name.starts_with("trueline-agent") || name.starts_with("trueline-collector") { "8" } else { "1" };
                assert!(there.iter().any(|there| there == name) && *section == expected, "{page} refers to {name}({section})");
            }
        }
    }
}
