//! `trueline events`: the live stream in the terminal.

use super::Session;
use crate::failure::Failure;
use crate::feed::Feed;
use crate::sse::{Follower, News};

pub async fn run(session: &Session) -> Result<(), Failure> {
    let mut follower = Follower::open(session.api.clone()).await?;
    let mut feed = Feed::new(session.screen, true);
    session.screen.note(&format!("Live from {}; Ctrl-C ends it. Times are UTC.", session.api.address()));
    let ended = tokio::signal::ctrl_c();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            _ = &mut ended => return Ok(()),
            news = follower.next() => match news? {
                News::Event(event) => feed.show(&event)?,
                News::Lost(error) => session.screen.note(&format!("{error}; trying again")),
                News::Back => session.screen.note("The stream is back; nothing was passed over."),
            },
        }
    }
}
