//! How a command ends when it does not end well, and the exit code of each way.
//!
//! 0 fine, 1 drift or refusal, 2 usage, 3 cannot reach.

use std::process::ExitCode;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The answer is "there is drift"; it has been printed.
    #[error("")]
    Drift,
    /// The collector, the host or this program said no.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unreachable(String),
    /// Whoever read the output has gone.
    #[error("")]
    Closed,
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Drift | Self::Refused(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(3),
        }
    }

    /// What to say on standard error, where anything is left to say.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Drift | Self::Closed => None,
            Self::Refused(_) | Self::Usage(_) | Self::Unreachable(_) => Some(self.to_string()),
        }
    }
}

/// Writing to standard output failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Refused(format!("cannot write to standard output: {error}"))
        }
    }
}
