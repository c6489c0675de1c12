//! `saltworks serve`: all runs under a folder, live in a browser.

use crate::console::{note, result};
use crate::failure::{Failure, input_error, run_error};
use crate::run_files::LockOwner;
use crate::serve::{Access, Library, Links, Server};
use std::env;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;

/// The variable for a token that must not appear in lists of processes.
const TOKEN: &str = "SALTWORKS_TOKEN";

/// Options of `serve`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Folder that contains runs, directly or in its subfolders.
    #[arg(default_value = "runs")]
    folder: PathBuf,
    /// The address to listen on. By default only this machine has access. 0.0.0.0 opens it to
    /// others, who need a token.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port. 0 means any free port.
    #[arg(long, default_value_t = 8384)]
    port: u16,
    /// The token that readers need, 8 characters or more. Also $SALTWORKS_TOKEN. It is not printed.
    /// If none is given and other machines have access, a token is generated and printed.
    #[arg(long)]
    token: Option<String>,
    /// Also follow links to folders elsewhere.
    #[arg(long)]
    follow_links: bool,
}

const EXAMPLES: &str = "Examples:
  saltworks serve runs                       http://127.0.0.1:8384 shows all runs under runs/
  saltworks serve . --port 0                 any free port
  saltworks serve runs --host 0.0.0.0        for other machines, with a token but no encryption
  ssh -L 8384:127.0.0.1:8384 host            encrypted access to a server on another machine

The pages are read-only. Without a token all users of this machine can read them. If others use it,
set $SALTWORKS_TOKEN: --token shows in lists of processes.";

/// Runs the command until it is stopped.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { folder, host, port, .. } = arguments;
    let given = arguments.token.clone().or_else(|| env::var(TOKEN).ok());
    if let Some(token) = given.as_ref().filter(|token| !is_token(token)) {
        let (found, expected) = (token.len(), "8 or more, of letters, digits, - and _");
        return Err(input_error(format!(
            "the token has {found} characters, expected {expected}. Choose another, or leave it out"
        )));
    }
    // A token of the user's may be secret, and what is printed may be kept in a log.
    let is_printed = given.is_none();
    let token = match given {
        None if !is_loopback(host) => Some(Access::new_token().map_err(run_error)?),
        given => given,
    };
    let links = if arguments.follow_links { Links::All } else { Links::Inside };
    let library = Library::new(folder, links).map_err(|error| {
        let what = "Give a folder that contains runs of `saltworks pretrain`";
        input_error(format!("cannot read {}: {error}. {what}", folder.display()))
    })?;
    let access = token.as_deref().map_or_else(Access::local, Access::token);
    let server = Server::bind(host, *port, library, access);
    let server = server.map_err(|error| input_error(refused(&error, host, *port)))?;
    let address = server.address().map_err(run_error)?;
    let secret = match token {
        Some(token) if is_printed => format!("?token={token}"),
        Some(_) => {
            note("add ?token= and your token to the address");
            String::new()
        }
        None => String::new(),
    };
    let name = match address.ip().is_unspecified() {
        true => format!("{}:{}", LockOwner::here().host, address.port()),
        false => address.to_string(),
    };
    result(&format!("http://{name}/{secret}"));
    if !is_loopback(host) {
        note("other machines have access. The connection is not encrypted");
    }
    note("Ctrl-C stops the server");
    let folder = folder.clone();
    let when_read = move |count| {
        let runs = if count == 1 { "run" } else { "runs" };
        note(&format!("{count} {runs} under {}", folder.display()));
    };
    server.run(when_read).map_err(run_error)
}

/// Whether a token needs no escaping in an address or a cookie.
fn is_token(token: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    token.len() >= 8 && token.chars().all(plain)
}

/// Whether only this machine reaches the address.
fn is_loopback(host: &str) -> bool {
    let mut addresses = (host, 0).to_socket_addrs().into_iter().flatten().peekable();
    addresses.peek().is_some() && addresses.all(|address| IpAddr::is_loopback(&address.ip()))
}

fn refused(error: &io::Error, host: &str, port: u16) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "Another program uses that port. Choose one with --port, or 0",
        io::ErrorKind::PermissionDenied => "Ports below 1024 are reserved. Choose another",
        _ => "Choose an address of this machine with --host",
    };
    format!("cannot listen on {host}:{port}: {error}. {advice}")
}
