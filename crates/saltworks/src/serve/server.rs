//! Sockets, and what bounds their number, their time and their memory. The only place with an
//! asynchronous runtime; files are read on its threads for blocking work.

use super::answer::{Answer, Body, Content};
use super::request::Request;
use super::site::{News, Site};
use super::{Access, Library};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// The most connections, those of them that are answered, and the streams of events among these.
/// Streams have places of their own, and fewer: they last, while a page takes a moment.
const MOST_CONNECTIONS: usize = 512;
const MOST_ANSWERED: usize = 128;
const MOST_STREAMS: usize = 64;
/// The most threads that read files: one for each connection that is answered, and some for the
/// checks of streams.
const MOST_THREADS: usize = MOST_ANSWERED + 32;
/// The most bytes of a request's head, and its most headers.
const MOST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// What the system keeps of an answer for a reader that does not take it.
const SEND_BYTES: usize = 256 << 10;
/// With more connections than these that have sent no request, the time for a request is shorter.
/// Browsers send theirs at once.
const CROWD: usize = 32;
const LARGE_CROWD: usize = 256;
/// Time between two checks of a connection's time limit.
const LIMIT_CHECK: Duration = Duration::from_millis(250);
/// Time between two checks for changes, and between two signs of life.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const SIGN_EVERY: Duration = Duration::from_secs(15);

/// The longest times.
#[derive(Clone, Copy, Debug)]
struct TimeLimits {
    /// For a request's head, if few wait for one.
    head: Duration,
    /// For an answer, and beside that for each MiB of it.
    answer: Duration,
    answer_mib: Duration,
    /// For a stream of events. Its page asks for another.
    stream: Duration,
}

/// A file of any size is sent within this many times the time for a MiB.
const MOST_MIB_TIMED: u64 = 1024;

/// (guess: a page of 10 MB takes a minute over a link of 1.3 Mbit/s)
const LIMITS: TimeLimits = TimeLimits {
    head: Duration::from_secs(5),
    answer: Duration::from_secs(60),
    answer_mib: Duration::from_secs(1),
    stream: Duration::from_secs(600),
};

/// A server with its port.
pub struct Server {
    listener: TcpListener,
    site: Arc<Site>,
    limits: TimeLimits,
}

impl Server {
    /// Binds the port; 0 is any free one.
    ///
    /// # Errors
    /// A name without an address, or a port that cannot be bound.
    pub fn bind(host: &str, port: u16, library: Library, access: Access) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice())?;
        // Connections inherit it.
        socket2::SockRef::from(&listener).set_send_buffer_size(SEND_BYTES)?;
        listener.set_nonblocking(true)?;
        let access = access.at(host, listener.local_addr()?);
        Ok(Self { listener, site: Arc::new(Site::new(library, access)), limits: LIMITS })
    }

    /// The address of the server.
    ///
    /// # Errors
    /// An error of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends. Meanwhile the runs are read for the first time, and
    /// `when_read` is told their number.
    ///
    /// # Errors
    /// A system without room for the threads.
    pub fn run(self, when_read: impl FnOnce(usize) + Send + 'static) -> io::Result<()> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().max_blocking_threads(MOST_THREADS);
        runtime.build()?.block_on(async {
            let site = Arc::clone(&self.site);
            spawn_blocking(move || {
                site.library.read_all();
                when_read(site.library.len());
            });
            accept(tokio::net::TcpListener::from_std(self.listener)?, self.site, self.limits).await
        })
    }
}

/// What all connections share.
struct ServerState {
    site: Arc<Site>,
    limits: TimeLimits,
    /// A connection holds a permit of one of these until its request is there, then of another.
    waiting: Arc<Semaphore>,
    answered: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// Accepts connections until the process ends. If there are too many, new ones wait.
async fn accept(
    listener: tokio::net::TcpListener,
    site: Arc<Site>,
    limits: TimeLimits,
) -> io::Result<()> {
    let places = |most| Arc::new(Semaphore::new(most));
    let connections = places(MOST_CONNECTIONS);
    let state = Arc::new(ServerState {
        site,
        limits,
        waiting: places(MOST_CONNECTIONS),
        answered: places(MOST_ANSWERED),
        streams: places(MOST_STREAMS),
    });
    loop {
        let place = Arc::clone(&connections).acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    connection(stream, state).await;
                    drop(place);
                });
            }
            // Too many files are open. Some will be closed soon.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Reads one request and answers it, within its time.
async fn connection(stream: TcpStream, state: Arc<ServerState>) {
    // A failure costs a delay only.
    let _ = stream.set_nodelay(true);
    let Ok(waiting) = Arc::clone(&state.waiting).try_acquire_owned() else { return };
    let phase = Phase { since: Instant::now(), limit: None, _place: Arc::new(waiting) };
    let phase = Arc::new(Mutex::new(phase));
    let service = service_fn(|request| answer(Arc::clone(&state), Arc::clone(&phase), request));
    let mut served = pin!(
        http1::Builder::new()
            .keep_alive(false)
            // Readers may close their side after the request, as `nc -N` does.
            .half_close(true)
            .max_buf_size(MOST_HEAD)
            .max_headers(MOST_HEADERS)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    while timeout(LIMIT_CHECK, served.as_mut()).await.is_err() {
        if lock(&phase).is_over(&state) {
            return;
        }
    }
}

/// What a connection is at, and for how long it may be.
struct Phase {
    since: Instant,
    /// `None` while it waits for a request: that limit depends on how many wait.
    limit: Option<Duration>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Phase {
    fn is_over(&self, state: &ServerState) -> bool {
        self.since.elapsed() > self.limit.unwrap_or_else(|| state.head_limit())
    }
}

impl ServerState {
    /// The longest time for a request's head.
    fn head_limit(&self) -> Duration {
        match MOST_CONNECTIONS - self.waiting.available_permits() {
            waiting if waiting <= CROWD => self.limits.head,
            waiting if waiting <= LARGE_CROWD => self.limits.head * 2 / 5,
            _ => self.limits.head / 10,
        }
    }
}

/// The value behind a lock. If a thread panicked, it was not in the middle of a change.
fn lock(phase: &Mutex<Phase>) -> std::sync::MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    state: Arc<ServerState>,
    phase: Arc<Mutex<Phase>>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let begin = |limit, place| {
        *lock(&phase) = Phase { since: Instant::now(), limit: Some(limit), _place: place };
    };
    let limits = state.limits;
    let answer = match Arc::clone(&state.answered).try_acquire_owned() {
        Ok(place) => {
            let place = Arc::new(place);
            begin(limits.answer, Arc::clone(&place));
            find(&state.site, request.into_parts().0, place).await
        }
        Err(_) => {
            lock(&phase).limit = Some(limits.answer);
            Answer::busy()
        }
    };
    let length = match &answer.content {
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::File(_, length) => *length,
        Content::Events(_) => 0,
    };
    let mib = (length >> 20).min(MOST_MIB_TIMED);
    lock(&phase).limit = Some(limits.answer + limits.answer_mib.mul_f64(mib as f64));
    Ok(answer.with_body(|ids| {
        // Its place among the pages is free for another.
        let place = Arc::clone(&state.streams).try_acquire_owned().ok();
        let stays = place.is_some();
        if let Some(place) = place {
            begin(limits.stream + limits.answer, Arc::new(place));
        }
        let (to, pieces) = channel(1);
        let lasts = if stays { limits.stream } else { Duration::ZERO };
        tokio::spawn(send_events(Arc::clone(&state.site), ids, lasts, to));
        Body::Pieces(pieces, None)
    }))
}

/// The answer to a request, made where files may be read. The place is taken for as long as that
/// lasts, even if the reader goes.
async fn find(
    site: &Arc<Site>,
    head: hyper::http::request::Parts,
    place: Arc<OwnedSemaphorePermit>,
) -> Answer {
    let head_only = head.method == Method::HEAD;
    let request = match Request::new(head) {
        Ok(request) => request,
        Err(problem) => {
            let text = format!("The request cannot be read: {problem}.");
            return Answer::text(StatusCode::BAD_REQUEST, &text);
        }
    };
    let site = Arc::clone(site);
    let made = spawn_blocking(move || {
        let _place = place;
        site.answer(&request)
    });
    match made.await {
        Ok(Answer { content: Content::Events(_), kind, .. }) if head_only => {
            Answer::ok(kind, Content::Bytes(Arc::default()))
        }
        Ok(answer) => answer,
        Err(_) => {
            let text = "This page cannot be made. It is a mistake in saltworks.";
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// Sends a number whenever something changed, as server-sent events, until the reader disconnects
/// or the stream has lasted long enough. Then its page asks again later.
///
/// If no run trains it ends after the first number: browsers open only six connections to a server,
/// for all their tabs.
async fn send_events(
    site: Arc<Site>,
    ids: Vec<String>,
    lasts: Duration,
    to: Sender<io::Result<Bytes>>,
) {
    let ids: Arc<[String]> = ids.into();
    let send = |text: String| to.send(Ok(Bytes::from(text)));
    let begun = Instant::now();
    let (mut sent, mut sign) = (None, begun);
    let mut begin = "retry: 2000\n\n";
    while !to.is_closed() {
        let (site, ids) = (Arc::clone(&site), Arc::clone(&ids));
        let Ok(news) = spawn_blocking(move || site.news(&ids, sent)).await else { return };
        let mut text = std::mem::take(&mut begin).to_owned();
        let News { version, lasts: more } = news;
        if let Some(version) = version {
            text += &format!("data: {version}\n\n");
            sent = Some(version);
        } else if sign.elapsed() >= SIGN_EVERY {
            text += ": here\n\n";
        }
        let ends = !more || begun.elapsed() >= lasts;
        if ends {
            text += "event: end\ndata: ask again later\n\n";
        }
        if !text.is_empty() {
            sign = Instant::now();
            if send(text).await.is_err() || ends {
                return;
            }
        }
        sleep(CHECK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Links;
    use super::super::library::tests::run;
    use super::*;
    use crate::run_files::LockOwner;
    use crate::run_files::names::{LOCK, PICTURES};
    use std::fs::{self, File};
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpStream;
    use std::thread;

    /// A server of a folder with one run, which has been read: until then, pages may say that it
    /// is being read.
    struct TestServer {
        folder: tempfile::TempDir,
        address: SocketAddr,
    }

    impl TestServer {
        fn with(limits: TimeLimits, host: &str) -> io::Result<Self> {
            let folder = tempfile::tempdir().unwrap();
            run(folder.path(), "one", "{\"stage\":\"teacher\",\"step\":1,\"loss\":0.5}\n");
            let library = Library::new(folder.path(), Links::Inside).unwrap();
            let mut server = Server::bind(host, 0, library, Access::local())?;
            server.limits = limits;
            let address = server.address().unwrap();
            let (send, read) = std::sync::mpsc::channel();
            thread::spawn(move || server.run(move |_| send.send(()).unwrap()).unwrap());
            read.recv().unwrap();
            Ok(Self { folder, address })
        }

        fn start() -> Self {
            Self::with(LIMITS, "127.0.0.1").unwrap()
        }

        fn send(&self, head: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
            stream
        }

        fn get(&self, path: &str) -> TcpStream {
            self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost"))
        }

        fn ask(&self, head: &str) -> String {
            let mut answer = String::new();
            self.send(head).read_to_string(&mut answer).unwrap();
            answer
        }
    }

    fn read(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Whether the other side has closed a connection.
    fn is_gone(mut stream: &TcpStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        match stream.read(&mut [0; 4096]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    #[test]
    fn silent_connections_delay_no_reader() {
        let served = TestServer::start();
        let begun = Instant::now();
        let connect = |_| TcpStream::connect(served.address).unwrap();
        let silent: Vec<TcpStream> = (0..MOST_ANSWERED + 12).map(connect).collect();
        let answer = read(served.get("/"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.60}");
        // Most of them are closed sooner than a single one would be.
        while silent.iter().filter(|stream| is_gone(stream)).count() < silent.len() - CROWD {
            assert!(begun.elapsed() < Duration::from_secs(30), "most are still there");
            thread::sleep(LIMIT_CHECK);
        }
    }

    #[test]
    fn a_slow_sender_of_a_request_is_cut_off() {
        let limits = TimeLimits { head: Duration::from_millis(500), ..LIMITS };
        let served = TestServer::with(limits, "127.0.0.1").unwrap();
        let mut slow = TcpStream::connect(served.address).unwrap();
        let begun = Instant::now();
        slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        while !is_gone(&slow) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is still there");
            let _ = slow.write_all(b"X: y\r\n");
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let served = TestServer::start();
        let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(40_000));
        let many = format!("GET / HTTP/1.1\r\nHost: localhost{}", "\r\nX: y".repeat(100));
        for head in [long, many] {
            let mut answer = Vec::new();
            // The rest of what was sent may reset the connection.
            let _ = served.send(&head).read_to_end(&mut answer);
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer:.60}");
        }
        assert!(read(served.get("/")).starts_with("HTTP/1.1 200"));
    }

    /// As many readers of a large file as there are places. They take no more than its head.
    fn slow_readers(served: &TestServer) -> Vec<TcpStream> {
        let pictures = served.folder.path().join("one").join(PICTURES);
        fs::create_dir(&pictures).unwrap();
        let file = File::create(pictures.join("teacher.json")).unwrap();
        file.set_len(64 << 20).unwrap();
        let path = "/api/pictures?id=one&stage=teacher";
        (0..MOST_ANSWERED).map(|_| served.get(path)).collect()
    }

    #[test]
    fn while_slow_readers_have_all_places_others_are_told_so() {
        let served = TestServer::start();
        let mut slow = slow_readers(&served);
        for stream in &mut slow {
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
        }
        assert!(read(served.get("/")).starts_with("HTTP/1.1 503"), "a place is free");
    }

    #[test]
    fn slow_readers_give_their_places_back() {
        let second = Duration::from_secs(1);
        let limits = TimeLimits { answer: second, answer_mib: Duration::ZERO, ..LIMITS };
        let served = TestServer::with(limits, "127.0.0.1").unwrap();
        let slow = slow_readers(&served);
        let begun = Instant::now();
        while !slow.iter().all(|stream| {
            // What the system holds of an answer comes first.
            (0..1 << 14).any(|_| is_gone(stream))
        }) {
            assert!(begun.elapsed() < Duration::from_secs(60), "slow readers are still there");
            thread::sleep(LIMIT_CHECK);
        }
        assert!(read(served.get("/")).starts_with("HTTP/1.1 200"), "slow readers keep all places");
    }

    #[test]
    fn a_large_file_arrives_whole() {
        let served = TestServer::start();
        let pictures = served.folder.path().join("one").join(PICTURES);
        fs::create_dir(&pictures).unwrap();
        let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
        crate::files::write_whole(&pictures.join("teacher.json"), text.as_bytes()).unwrap();
        let answer = read(served.get("/api/pictures?id=one&stage=teacher"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", text.len())), "{head}");
        assert!(body == text, "{} bytes", body.len());
    }

    #[test]
    fn idle_streams_of_events_keep_no_page_waiting() {
        let served = TestServer::start();
        let lock = served.folder.path().join("one").join(LOCK);
        crate::files::write_whole(&lock, LockOwner::here().text().as_bytes()).unwrap();
        let lock = File::open(&lock).unwrap();
        lock.lock().unwrap();
        let begun = Instant::now();
        while !read(served.get("/api/runs")).contains("\"training\"") {
            assert!(begun.elapsed() < Duration::from_secs(30), "the run trains");
            thread::sleep(LIMIT_CHECK);
        }
        let streams: Vec<_> = (0..MOST_ANSWERED + 72)
            .map(|_| {
                let mut stream = BufReader::new(served.get("/events"));
                let mut line = String::new();
                while !line.starts_with("data: ") {
                    line.clear();
                    assert_ne!(stream.read_line(&mut line).unwrap(), 0, "a stream without news");
                }
                stream
            })
            .collect();
        assert!(read(served.get("/")).starts_with("HTTP/1.1 200"));
        // Those without a place have ended: their pages ask again later.
        let last = streams.into_iter().last().unwrap();
        let rest: String = last.lines().map_while(Result::ok).collect();
        assert!(rest.contains("event: end"), "{rest}");
    }

    #[test]
    fn every_answer_forbids_frames_caches_and_use_elsewhere() {
        let served = TestServer::start();
        let local = "HTTP/1.1\r\nHost: localhost";
        for (head, status) in [
            (format!("GET / {local}"), "200"),
            (format!("GET /api/runs {local}"), "200"),
            (format!("GET /run?id=one {local}"), "200"),
            (format!("GET /events {local}"), "200"),
            (format!("GET /run?id=two {local}"), "404"),
            (format!("GET /api/run?id=two {local}"), "404"),
            (format!("POST / {local}"), "405"),
            (format!("GET / {local}\r\nHost: localhost"), "400"),
            ("GET / HTTP/1.1\r\nHost: evil.example".to_owned(), "403"),
        ] {
            let answer = served.ask(&head);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer:.60}");
            for header in [
                "Cache-Control: no-store",
                "X-Content-Type-Options: nosniff",
                "X-Frame-Options: DENY",
                "Referrer-Policy: no-referrer",
                "Cross-Origin-Resource-Policy: same-origin",
                "Connection: close",
            ] {
                let found = answer.lines().any(|line| line.eq_ignore_ascii_case(header));
                assert!(found, "{head} without {header}: {answer:.600}");
            }
        }
        let page = served.ask(&format!("GET / {local}"));
        let policy = page.split("Content-Security-Policy\" content=\"").nth(1).unwrap();
        let policy = policy.split('"').next().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "its style and its script: {policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn a_head_alone_has_the_headers_of_its_page() {
        let served = TestServer::start();
        for path in ["/run?id=one", "/events"] {
            let head = |method: &str| {
                let answer = served.ask(&format!("{method} {path} HTTP/1.1\r\nHost: localhost"));
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let kept = |line: &&str| {
                    !["date:", "content-length", "transfer-enc"]
                        .iter()
                        .any(|name| line.to_ascii_lowercase().starts_with(name))
                };
                let kept: Vec<String> = head.lines().filter(kept).map(str::to_owned).collect();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                (kept, length.map(str::to_owned), body.len())
            };
            let ((whole, length, _), (alone, alone_length, body)) = (head("GET"), head("HEAD"));
            assert_eq!((&whole, body), (&alone, 0), "{path}");
            if length.is_some() {
                assert_eq!(length, alone_length, "{path}");
            }
        }
    }

    #[test]
    fn readers_on_ipv6_and_those_that_close_their_side_are_answered() {
        let half = TestServer::start();
        let stream = half.get("/");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(read(stream).starts_with("HTTP/1.1 200"));
        // Some machines have no IPv6.
        let Ok(served) = TestServer::with(LIMITS, "::1") else { return };
        let head = format!("GET / HTTP/1.1\r\nHost: {}", served.address);
        assert!(head.contains("[::1]:") && served.ask(&head).starts_with("HTTP/1.1 200"));
    }
}
