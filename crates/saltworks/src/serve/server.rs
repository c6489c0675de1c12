//! Sockets: one thread for each reader, a bounded number of them.

use super::http::{Request, Response, head};
use super::site::{Answer, Site};
use super::{Access, Library};
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Readers at a time.
const MOST_READERS: usize = 128;
/// A reader that says or takes nothing for so long is gone, and a request takes no longer in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks for news, and between two signs of life.
const LOOK: Duration = Duration::from_secs(1);
const SIGN: Duration = Duration::from_secs(15);

/// A server that has its port.
pub struct Server {
    listener: TcpListener,
    site: Arc<Site>,
}

impl Server {
    /// Takes the port; 0 for any that is free.
    ///
    /// # Errors
    /// A name without an address, or a port that cannot be had.
    pub fn bind(host: &str, port: u16, library: Library, access: Access) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice())?;
        let access = access.at(host, listener.local_addr()?);
        Ok(Self { listener, site: Arc::new(Site::new(library, access)) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends.
    pub fn run(&self) {
        let readers = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                // Too many open files: some will be closed.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let reader = Reader::new(&readers);
            let site = Arc::clone(&self.site);
            // A reader that goes away in the middle is no problem of ours, and one for whom there is no
            // thread asks again.
            let _ = thread::Builder::new().spawn(move || {
                let _ = answer(stream, &site, reader.is_welcome());
                drop(reader);
            });
        }
    }
}

/// Counts a reader as long as it lives.
struct Reader(Arc<AtomicUsize>, usize);

impl Reader {
    fn new(readers: &Arc<AtomicUsize>) -> Self {
        let before = readers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(readers), before)
    }

    fn is_welcome(&self) -> bool {
        self.1 < MOST_READERS
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that is read until a moment, however slowly bytes come.
struct Until<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        (&mut &*self.stream).read(bytes)
    }
}

fn answer(mut stream: TcpStream, site: &Site, welcome: bool) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    if !welcome {
        let busy = "Too many pages are open. Close some, and load this one again.";
        return Response::text("503 Service Unavailable", busy).send(&mut stream, false);
    }
    let mut asking = Until { stream: &stream, end: Instant::now() + PATIENCE };
    let request = match Request::read(&mut asking) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let text = format!("Not understood: {error}.");
            return Response::text("400 Bad Request", &text).send(&mut stream, false);
        }
        Err(error) => return Err(error),
    };
    let head_only = request.method == "HEAD";
    match site.answer(&request) {
        Answer::Page(response) => response.send(&mut stream, head_only),
        Answer::Events(_) if head_only => {
            Response::ok("text/event-stream", "").send(&mut stream, true)
        }
        Answer::Events(ids) => events(&mut stream, site, &ids),
    }
}

/// Sends a number whenever something changed, as server-sent events, until the reader has gone. Where no run
/// trains it ends after that: browsers open six connections to one server, for all their tabs.
fn events(stream: &mut TcpStream, site: &Site, ids: &[String]) -> io::Result<()> {
    let start = head("200 OK", "text/event-stream", &[]) + "\r\nretry: 2000\n\n";
    stream.write_all(start.as_bytes())?;
    let mut told = None;
    let mut sign = Instant::now();
    loop {
        let version = site.version(ids);
        if told != Some(version) {
            stream.write_all(format!("data: {version}\n\n").as_bytes())?;
            (told, sign) = (Some(version), Instant::now());
            if !site.is_training(ids) {
                return stream.write_all(b"event: end\ndata: nothing trains\n\n");
            }
        } else if sign.elapsed() >= SIGN {
            stream.write_all(b": here\n\n")?;
            sign = Instant::now();
        }
        stream.flush()?;
        thread::sleep(LOOK);
    }
}
