//! Sockets: one thread for each connection, and a limit on their number.

use super::http::{Request, Response, head};
use super::site::{Answer, Site};
use super::{Access, Library};
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The most readers, and the most connections without a request yet. The two are counted
/// separately, so silent connections do not keep readers out.
const MOST_READERS: usize = 128;
const MOST_WAITING: usize = 512;
/// The time limit for a request, and for a reader to receive some of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// With more connections than this that have sent no request, the limit for a request is shorter.
/// Browsers send theirs at once.
const CROWD: usize = 32;
const CROWD_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two checks of their number.
const CROWD_CHECK: Duration = Duration::from_millis(250);
/// Time between two checks for changes, and between two signs of life.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const SIGN_EVERY: Duration = Duration::from_secs(15);

/// A server with its port.
pub struct Server {
    listener: TcpListener,
    site: Arc<Site>,
}

impl Server {
    /// Binds the port; 0 is any free one.
    ///
    /// # Errors
    /// A name without an address, or a port that cannot be bound.
    pub fn bind(host: &str, port: u16, library: Library, access: Access) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice())?;
        let access = access.at(host, listener.local_addr()?);
        Ok(Self { listener, site: Arc::new(Site::new(library, access)) })
    }

    /// The address of the server.
    ///
    /// # Errors
    /// An error of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends.
    pub fn run(&self) {
        let (callers, readers) = (Arc::default(), Arc::default());
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                // Too many files are open. Some will be closed soon.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let caller = ConnectionSlot::new(&callers);
            let (site, readers) = (Arc::clone(&self.site), Arc::clone(&readers));
            // A reader may disconnect in the middle. One without a thread tries again.
            let _ = thread::Builder::new().spawn(move || {
                let _ = answer(stream, &site, caller, &readers);
            });
        }
    }
}

/// Counts one connection for as long as it lives.
struct ConnectionSlot {
    count: Arc<AtomicUsize>,
    earlier: usize,
}

impl ConnectionSlot {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        let earlier = count.fetch_add(1, Ordering::Relaxed);
        Self { count: Arc::clone(count), earlier }
    }

    /// Whether there were fewer than `most` connections before this one.
    fn is_within(&self, most: usize) -> bool {
        self.earlier < most
    }

    /// The number of connections now.
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream of a new connection. The time limit holds for the whole request, even if its bytes
/// come slowly.
struct RequestStream<'a> {
    stream: &'a TcpStream,
    caller: &'a ConnectionSlot,
    begun: Instant,
}

impl Read for RequestStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let limit = if self.caller.count() > CROWD { CROWD_TIMEOUT } else { TIMEOUT };
            let left = limit.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left.min(CROWD_CHECK)))?;
            match (&mut &*self.stream).read(bytes) {
                Err(error) if is_timeout(&error) => {}
                result => return result,
            }
        }
    }
}

/// Whether a read took too long. Systems have two names for it.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn answer(
    mut stream: TcpStream,
    site: &Site,
    caller: ConnectionSlot,
    readers: &Arc<AtomicUsize>,
) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    if !caller.is_within(MOST_WAITING) {
        return busy().send(&mut stream, false);
    }
    let mut incoming = RequestStream { stream: &stream, caller: &caller, begun: Instant::now() };
    let request = match Request::read(&mut incoming) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let text = format!("The request cannot be read: {error}.");
            return Response::text("400 Bad Request", &text).send(&mut stream, false);
        }
        Err(error) => return Err(error),
    };
    drop(caller);
    let reader = ConnectionSlot::new(readers);
    if !reader.is_within(MOST_READERS) {
        return busy().send(&mut stream, false);
    }
    let head_only = request.method == "HEAD";
    match site.answer(&request) {
        Answer::Page(response) => response.send(&mut stream, head_only),
        Answer::Events(_) if head_only => {
            Response::ok("text/event-stream", "").send(&mut stream, true)
        }
        Answer::Events(ids) => events(&mut stream, site, &ids),
    }
}

fn busy() -> Response {
    let text = "Too many pages are open. Close some, and load this one again.";
    Response::text("503 Service Unavailable", text)
}

/// Sends a number whenever something changed, as server-sent events, until the reader disconnects.
///
/// If no run trains it ends after the first number: browsers open only six connections to a server,
/// for all their tabs.
fn events(stream: &mut TcpStream, site: &Site, ids: &[String]) -> io::Result<()> {
    let start = head("200 OK", "text/event-stream", &[]) + "\r\nretry: 2000\n\n";
    stream.write_all(start.as_bytes())?;
    let mut sent = None;
    let mut sign = Instant::now();
    loop {
        let version = site.version(ids);
        if sent != Some(version) {
            stream.write_all(format!("data: {version}\n\n").as_bytes())?;
            (sent, sign) = (Some(version), Instant::now());
            if !site.is_training(ids) {
                return stream.write_all(b"event: end\ndata: nothing trains\n\n");
            }
        } else if sign.elapsed() >= SIGN_EVERY {
            stream.write_all(b": here\n\n")?;
            sign = Instant::now();
        }
        stream.flush()?;
        thread::sleep(CHECK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Links;

    #[test]
    fn silent_connections_delay_no_reader() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path(), Links::Inside).unwrap();
        let server = Server::bind("127.0.0.1", 0, library, Access::local()).unwrap();
        let address = server.address().unwrap();
        thread::spawn(move || server.run());
        let connect = || TcpStream::connect(address).unwrap();
        let begun = Instant::now();
        let silent: Vec<TcpStream> = (0..MOST_READERS + 12).map(|_| connect()).collect();
        let mut asking = connect();
        asking.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{:.60}", answer);
        // Most of them are closed sooner than a single one would be.
        let gone = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
        };
        while silent.iter().filter(|stream| gone(stream)).count() < silent.len() - CROWD {
            assert!(begun.elapsed() < TIMEOUT, "most are still there");
            thread::sleep(CROWD_CHECK);
        }
    }
}
