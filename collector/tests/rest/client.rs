//! An HTTP/1.1 client small enough to send what no library would.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The session cookie of a login, as a browser would send it back.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }
}

async fn open(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early may not read the body to its end.
    let _ = stream.write_all(body).await;
    BufReader::new(stream)
}

async fn head(reader: &mut BufReader<TcpStream>) -> (u16, HashMap<String, String>) {
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}")).parse().unwrap();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    (status, headers)
}

pub async fn send(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let exchange = async {
        let mut reader = open(at, method, path, headers, body).await;
        let (status, headers) = head(&mut reader).await;
        let mut bytes = Vec::new();
        match headers.get("content-length").and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => {
                bytes.resize(length, 0);
                reader.read_exact(&mut bytes).await.unwrap();
            }
            None if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") => loop {
                let Some(chunk) = chunk(&mut reader).await else { break };
                bytes.extend(chunk);
            },
            None => {
                reader.read_to_end(&mut bytes).await.unwrap();
            }
        }
        Answer { status, headers, body: String::from_utf8(bytes).unwrap() }
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{method} {path} was not answered"))
}

async fn chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes).await.ok()?;
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: String,
}

/// An open event stream.
pub struct EventSource {
    reader: BufReader<TcpStream>,
    text: String,
}

impl EventSource {
    pub async fn open(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut reader = open(at, "GET", path, headers, b"").await;
        let (status, headers) = head(&mut reader).await;
        assert_eq!((status, headers["content-type"].as_str()), (200, "text/event-stream"));
        Self { reader, text: String::new() }
    }

    /// The next event; `None` where the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event within the client's patience")
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.collect::<Vec<_>>().join("\n")
                };
                if !field("event").is_empty() {
                    return Some(Event { name: field("event"), id: field("id"), data: field("data") });
                }
            }
            let chunk = chunk(&mut self.reader).await?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next events of these names.
    pub async fn take(&mut self, count: usize, names: &[&str]) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let event = self.next().await.expect("the stream goes on");
            if names.contains(&event.name.as_str()) {
                events.push(event);
            }
        }
        events
    }
}
