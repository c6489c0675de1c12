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

/// Readers at a time, and connections that have not asked yet: who says nothing takes no reader's place.
const MOST_READERS: usize = 128;
const MOST_CALLERS: usize = 512;
/// A reader that says or takes nothing for so long is gone, and a request takes no longer in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where so many connections have not asked yet: browsers ask at once.
const CROWD: usize = 32;
const HASTE: Duration = Duration::from_secs(2);
/// Time between two looks at how many they are.
const GLANCE: Duration = Duration::from_millis(250);
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
        let (callers, readers) = (Arc::default(), Arc::default());
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                // Too many open files: some will be closed.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let caller = ConnectionSlot::new(&callers);
            let (site, readers) = (Arc::clone(&self.site), Arc::clone(&readers));
            // A reader that goes away in the middle is no problem of ours, and one for whom there is no
            // thread asks again.
            let _ = thread::Builder::new().spawn(move || {
                let _ = answer(stream, &site, caller, &readers);
            });
        }
    }
}

/// One of a number of places, as long as it lives.
struct ConnectionSlot {
    taken: Arc<AtomicUsize>,
    before: usize,
}

impl ConnectionSlot {
    fn new(taken: &Arc<AtomicUsize>) -> Self {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        Self { taken: Arc::clone(taken), before }
    }

    fn is_within(&self, most: usize) -> bool {
        self.before < most
    }

    /// How many are taken now.
    fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A caller's stream: it is read for as long as there is patience, however slowly bytes come.
struct PatientStream<'a> {
    stream: &'a TcpStream,
    caller: &'a ConnectionSlot,
    begun: Instant,
}

impl Read for PatientStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let patience = if self.caller.count() > CROWD { HASTE } else { PATIENCE };
            let left = patience.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left.min(GLANCE)))?;
            match (&mut &*self.stream).read(bytes) {
                Err(error) if is_silence(&error) => {}
                result => return result,
            }
        }
    }
}

/// Systems have two names for a read that took too long.
fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn answer(
    mut stream: TcpStream,
    site: &Site,
    caller: ConnectionSlot,
    readers: &Arc<AtomicUsize>,
) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    if !caller.is_within(MOST_CALLERS) {
        return busy().send(&mut stream, false);
    }
    let mut asking = PatientStream { stream: &stream, caller: &caller, begun: Instant::now() };
    let request = match Request::read(&mut asking) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let text = format!("Not understood: {error}.");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Links;

    #[test]
    fn connections_that_say_nothing_keep_no_reader_waiting() {
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
        // Nor do most of them stay as long as one that is alone.
        let gone = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
        };
        while silent.iter().filter(|stream| gone(stream)).count() < silent.len() - CROWD {
            assert!(begun.elapsed() < PATIENCE, "most are still there");
            thread::sleep(GLANCE);
        }
    }
}
