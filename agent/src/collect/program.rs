//! Asks a program of the host, where its data has no other reader that keeps up with it: `rpm`, `journalctl`.
//!
//! Invariants: the program gets a fixed environment and no input; it is ended at its deadline or when it has printed too
//! much, and is always reaped.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a program that did not fail has printed.
pub fn succeeded((status, output): (ExitStatus, Vec<u8>)) -> io::Result<Vec<u8>> {
    if status.success() { Ok(output) } else { Err(io::Error::other(format!("the program ended with {status}"))) }
}

/// How a program ended, and what it printed, within the deadline and at most `limit` bytes.
pub fn run(command: &mut Command, deadline: Duration, limit: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = read_until(&mut child, Instant::now() + deadline, limit);
    if output.is_err() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok((status, output?))
}

fn read_until(child: &mut Child, deadline: Instant, limit: usize) -> io::Result<Vec<u8>> {
    let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("the program has no output"))?;
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::Error::other("the program did not end in time")),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(output),
            read => output.extend_from_slice(&buffer[..read]),
        }
        if output.len() > limit {
            return Err(io::Error::other(format!("the program printed more than {limit} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_or_floods_is_ended() {
        let hang = run(Command::new("sleep").arg("1000"), Duration::from_millis(50), 1).unwrap_err();
        assert!(hang.to_string().contains("in time"), "{hang}");
        let flood = run(&mut Command::new("yes"), Duration::from_secs(60), 1 << 20).unwrap_err();
        assert!(flood.to_string().contains("more than"), "{flood}");
        assert!(run(&mut Command::new("false"), Duration::from_secs(60), 1).and_then(succeeded).is_err());
    }
}
