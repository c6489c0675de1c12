//! A server of the files in a folder, as HTTP servers, S3 and Google Cloud Storage answer: sizes,
//! ranges, conditions and listings. It fails when told to.

#![allow(unreachable_pub)]

use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct Server {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    folder: PathBuf,
    /// Every so many requests one is answered 503, for want of a better server.
    busy_every: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

impl Server {
    pub fn of(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Arc::new(Shared { folder, busy_every: usize::MAX.into(), asked: Mutex::default() });
        let server = Self { shared: Arc::clone(&shared), port };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn busy_every(&self, requests: usize) {
        self.shared.busy_every.store(requests, Ordering::SeqCst);
    }

    /// Method and path of each request so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

#[derive(Default)]
struct Request {
    method: String,
    path: String,
    query: String,
    range: Option<(usize, usize)>,
    if_match: Option<String>,
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read(&mut reader) {
            let number = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(format!("{} {}", request.method, request.path));
                asked.len()
            };
            let busy = number.is_multiple_of(self.busy_every.load(Ordering::SeqCst));
            let (head, body) = match busy {
                true => ("503 Slow Down\r\n".to_owned(), Vec::new()),
                false => self.answer(&request),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {head}Content-Length: {length}\r\n\r\n");
            let body = if request.method == "HEAD" { &[][..] } else { &body };
            let mut stream = stream;
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> (String, Vec<u8>) {
        if request.query.contains("list-type=2") {
            return ("200 OK\r\n".to_owned(), self.list(&request.query).into_bytes());
        }
        let Ok(bytes) = fs::read(self.folder.join(&request.path)) else {
            return ("404 Not Found\r\n".to_owned(), b"nothing there".to_vec());
        };
        let tag = format!("\"{:x?}\"", &Sha256::digest(&bytes)[..4]).replace([' ', ','], "");
        if request.if_match.as_ref().is_some_and(|wanted| *wanted != tag) {
            return ("412 Precondition Failed\r\n".to_owned(), Vec::new());
        }
        let date = "Mon, 23 Nov 2026 10:00:00 GMT";
        let head = format!("ETag: {tag}\r\nLast-Modified: {date}\r\nAccept-Ranges: bytes\r\n");
        match request.range {
            None => (format!("200 OK\r\n{head}"), bytes),
            Some((first, last)) => {
                let range = format!("bytes {first}-{last}/{}", bytes.len());
                let part = bytes[first..=last].to_vec();
                (format!("206 Partial Content\r\n{head}Content-Range: {range}\r\n"), part)
            }
        }
    }

    /// ListObjectsV2 with the delimiter `/`; the bucket is the folder `bucket`.
    fn list(&self, query: &str) -> String {
        let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or("");
        let prefix = prefix.replace("%2F", "/");
        let mut text = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
        for entry in fs::read_dir(self.folder.join("bucket").join(&prefix)).unwrap().flatten() {
            let key = format!("{prefix}{}", entry.file_name().display());
            let len = entry.metadata().unwrap().len();
            text += &match entry.path().is_dir() {
                true => format!("<CommonPrefixes><Prefix>{key}/</Prefix></CommonPrefixes>"),
                false => format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-23T10:00:00.000Z\
                     </LastModified><ETag>x</ETag><Size>{len}</Size></Contents>"
                ),
            };
        }
        text + "</ListBucketResult>"
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = next()?;
    let mut words = first.split(' ');
    let method = words.next()?.to_owned();
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Google's client encodes more than it must.
    let path = path.trim_start_matches('/').replace("%2F", "/").replace("%2D", "-");
    let (path, query) = (path.replace("%2E", "."), query.to_owned());
    let mut request = Request { method, path, query, ..Request::default() };
    while let Some(header) = next().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "range" => {
                let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range = Some((first.parse().ok()?, last.parse().ok()?));
            }
            "if-match" => request.if_match = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}
