//! The live event stream: server-sent events, taken up again after the last one that was seen.
//!
//! Invariants: no event is given twice and none is passed over while the collector still has it; an
//! event is bounded in size; a lost connection is announced once, not at every try.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::Value;

use crate::api::{Api, ApiError};

/// Largest event taken, in bytes.
const EVENT_LIMIT: usize = 8 * 1024 * 1024;
/// A stream that says nothing for so long, not even a comment, is lost.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// What [`Follower::next`] has to tell.
#[derive(Debug)]
pub enum News {
    Event(Event),
    /// The stream was lost and is being tried again.
    Lost(ApiError),
    /// It is there again, and goes on where it ended.
    Back,
}

type Bytes = Pin<Box<dyn Stream<Item = Result<Vec<u8>, String>> + Send>>;

pub struct Follower {
    api: Api,
    stream: Option<Bytes>,
    parser: Parser,
    last: Option<String>,
    ready: VecDeque<Event>,
    wait: Duration,
    lost: bool,
}

impl Follower {
    /// Opens the stream; from then on nothing that happens is passed over.
    pub async fn open(api: Api) -> Result<Self, ApiError> {
        let mut follower =
            Self { api, stream: None, parser: Parser::default(), last: None, ready: VecDeque::new(), wait: FIRST_WAIT, lost: false };
        follower.connect().await?;
        Ok(follower)
    }

    async fn connect(&mut self) -> Result<(), ApiError> {
        let response = self.api.event_stream(self.last.as_deref()).await?;
        self.parser = Parser::default();
        let pieces = response.bytes_stream().map(|piece| piece.map(|piece| piece.to_vec()).map_err(|error| error.to_string()));
        self.stream = Some(Box::pin(pieces));
        Ok(())
    }

    /// The next event, or what became of the stream. Fails where trying again is of no use.
    ///
    /// Cancellation safe: what was read is kept.
    pub async fn next(&mut self) -> Result<News, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(News::Event(event));
            }
            let Some(stream) = &mut self.stream else {
                tokio::time::sleep(self.wait).await;
                match self.connect().await {
                    Ok(()) => {
                        self.lost = false;
                        return Ok(News::Back);
                    }
                    Err(error @ ApiError::Problem { status: 400..=499, .. }) => return Err(error),
                    Err(_) => {
                        self.wait = (self.wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                }
            };
            match tokio::time::timeout(SILENCE_TIMEOUT, stream.next()).await.unwrap_or(Some(Err("it fell silent".to_owned()))) {
                Some(Ok(piece)) => {
                    self.wait = FIRST_WAIT;
                    if self.parser.push(&piece, &mut self.ready).is_err() {
                        self.stream = None;
                        return Ok(News::Lost(self.broken(format!("an event of more than {EVENT_LIMIT} bytes"))));
                    }
                    if let Some(id) = self.parser.last_id.take() {
                        self.last = Some(id);
                    }
                }
                ended => {
                    self.stream = None;
                    let reason = match ended {
                        Some(Err(reason)) => reason,
                        _ => "the collector closed the stream".to_owned(),
                    };
                    if !std::mem::replace(&mut self.lost, true) {
                        return Ok(News::Lost(self.broken(reason)));
                    }
                }
            }
        }
    }

    fn broken(&self, reason: String) -> ApiError {
        ApiError::Broken { url: self.api.address().to_owned(), reason }
    }
}

/// The text/event-stream format (WHATWG HTML, "Server-sent events"), fed in pieces of any size.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
    /// Of the last event that was complete.
    last_id: Option<String>,
}

struct TooLarge;

impl Parser {
    fn push(&mut self, piece: &[u8], out: &mut VecDeque<Event>) -> Result<(), TooLarge> {
        for byte in piece {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(line.strip_suffix(b"\r").unwrap_or(&line), out);
                }
                byte => self.line.push(*byte),
            }
            if self.line.len() + self.data.len() > EVENT_LIMIT {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], out: &mut VecDeque<Event>) {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if let Some(id) = self.id.take() {
                self.last_id = Some(id);
            }
            // `ready` only carries the place where the stream begins.
            if name != "ready"
                && let Ok(data) = serde_json::from_str(&data)
            {
                out.push_back(Event { name, data });
            }
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\r\n\r\nid: 1.2.3\nevent: drift\ndata: {\"id\":\ndata: 7}\n\nevent: change\ndata:{}\n\n: still here\n\nevent: cut\ndata: {";

    #[test]
    fn events_are_whole_however_the_stream_is_cut() {
        for size in 1..STREAM.len() {
            let (mut parser, mut out) = (Parser::default(), VecDeque::new());
            for piece in STREAM.as_bytes().chunks(size) {
                assert!(parser.push(piece, &mut out).is_ok());
            }
            let names: Vec<&str> = out.iter().map(|event| event.name.as_str()).collect();
            assert_eq!(names, ["drift", "change"], "in pieces of {size}");
            assert_eq!(out[0].data["id"], 7);
            assert_eq!(parser.last_id.as_deref(), Some("1.2.3"));
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        let piece = vec![b'x'; 1024 * 1024];
        assert!((0..9).any(|_| parser.push(&piece, &mut out).is_err()));
    }
}
