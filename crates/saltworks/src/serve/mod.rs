//! Live pages of all runs under a folder, over HTTP. A few readers may use them, on the same
//! machine or, with a token, on others.

mod access;
mod answer;
mod library;
mod request;
mod row;
mod search;
mod server;
mod site;

pub use access::Access;
pub use library::{Library, Links};
pub use server::Server;
