//! What goes into the store and comes out of it, a file for each noun.

mod action;
mod baseline;
mod batch;
mod change;
mod drift;
mod event;
mod gap;
mod host;
mod judging;
mod measures;
mod page;
mod summary;
mod token;

pub use action::*;
pub use baseline::*;
pub use batch::*;
pub use change::*;
pub use drift::*;
pub use event::*;
pub use gap::*;
pub use host::*;
pub use judging::*;
pub use measures::*;
pub use page::*;
pub use summary::*;
pub use token::*;
