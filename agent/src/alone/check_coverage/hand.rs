//! The process that makes the changes: a child that begins after the sensors, as whatever they watch does.
//!
//! It takes the number of a case a line on its standard input, answers each with one line, and ends with its input.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use trueline_drift::{Time, text};

use super::cases::CASES;
use crate::clock;

/// The child's side.
pub fn serve(canary: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let case = line?.parse().ok().and_then(|number: usize| CASES.get(number));
        let began = clock::now();
        let outcome = case.map_or_else(|| Err(io::ErrorKind::InvalidInput.into()), |case| case.act(canary));
        match outcome {
            Ok(()) => writeln!(out, "{}", began.micros())?,
            Err(error) => writeln!(out, "failed {}", text::printable(error.to_string().as_bytes()))?,
        }
        out.flush()?;
    }
    Ok(())
}

/// The parent's side: ended and waited for when dropped.
pub struct Hand {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Hand {
    pub fn start(canary: &Path) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["check-coverage", "--hand"])
            .arg(canary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().expect("its standard output is a pipe"));
        Ok(Self { child, answers })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When the case began, or why it cannot be tried.
    pub fn act(&mut self, case: usize) -> io::Result<Result<Time, String>> {
        let mut input = self.child.stdin.as_ref().expect("its standard input is open until it is dropped");
        input.write_all(format!("{case}\n").as_bytes())?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process that makes the changes has ended"));
        }
        let answer = answer.trim_end();
        Ok(answer.parse().map(Time::from_micros).map_err(|_| answer.strip_prefix("failed ").unwrap_or(answer).to_owned()))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.child.stdin = None;
        let _ = self.child.wait();
    }
}
