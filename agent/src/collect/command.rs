//! Commands that stand in the host's files, as they may be told: what a line of any file may not show is masked, and what
//! the arguments of a program may not.

use trueline_drift::redact::{self, RedactionKey};

/// A command in its printable form, as a shell would read it, with the secrets in it masked.
pub fn masked(command: &str, key: &RedactionKey) -> String {
    let line = redact::line(command, key).into_owned();
    let arguments = redact::arguments(&["sh".to_owned(), "-c".to_owned(), line]);
    arguments.into_iter().next_back().expect("as many arguments come back as were given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_argument_or_a_line_may_not_show_is_masked() {
        let key = RedactionKey::new([7; 32]);
        let masked = |command| masked(command, &key);
        for command in [
            "/usr/bin/backup --password hunter2secret",
            "API_TOKEN=hunter2secret /usr/bin/up",
            "curl -s https://bob:hunter2secret@example.org/x",
        ] {
            assert!(!masked(command).contains("hunter2"), "{}", masked(command));
        }
        let plain = "cd / && run-parts --report /etc/cron.hourly";
        assert_eq!(masked(plain), plain);
    }
}
