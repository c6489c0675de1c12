//! The part of HTTP/1.1 that a page for reading needs: GET and HEAD, one request per connection.

use std::io::{self, Read, Write};

/// The most bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;

/// A request without a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The part before the question mark, not decoded.
    pub(super) path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads a request's head. `None` if nothing was sent.
    ///
    /// # Errors Bytes that are not a request, are too many, or end early.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        let mut chunk = [0; 2048];
        loop {
            let read = from.read(&mut chunk)?;
            if read == 0 && head.is_empty() {
                return Ok(None);
            }
            head.extend_from_slice(&chunk[..read]);
            match Self::parse(&head)? {
                Some(request) => return Ok(Some(request)),
                None if read == 0 => return Err(invalid("the request ends early")),
                None if head.len() > MOST_HEAD => return Err(invalid("the request is too long")),
                None => {}
            }
        }
    }

    /// A request from its head. `None` if the head is incomplete.
    pub(super) fn parse(head: &[u8]) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if parsed.parse(head).map_err(|error| invalid(&error.to_string()))?.is_partial() {
            return Ok(None);
        }
        let hosts = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
        if hosts.count() > 1 {
            // RFC 9112, 3.2.
            return Err(invalid("the request names more than one host"));
        }
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let target = text(parsed.path);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let header = |header: &httparse::Header<'_>| {
            (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
        };
        Ok(Some(Self {
            method: text(parsed.method),
            path: path.to_owned(),
            query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect(),
            headers: parsed.headers.iter().map(header).collect(),
        }))
    }

    /// A header's value, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name in the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.queries(name).next()
    }

    /// All values of a name in the query.
    pub(super) fn queries(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The address without the token.
    pub(super) fn without_token(&self) -> String {
        let rest = self.query.iter().filter(|(name, _)| name != "token");
        let rest: Vec<String> =
            rest.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let mark = if rest.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.path, rest.join("&"))
    }
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
    /// More headers.
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Response {
    pub(super) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", kind, body: body.into(), headers: Vec::new() }
    }

    /// A sentence for people.
    pub(super) fn text(status: &'static str, text: &str) -> Self {
        let body = format!("{text}\n").into();
        Self { status, kind: "text/plain; charset=utf-8", body, headers: Vec::new() }
    }

    /// Sends the answer, or only its head.
    pub(super) fn send(&self, to: &mut impl Write, head_only: bool) -> io::Result<()> {
        let mut out = head(self.status, self.kind, &self.headers).into_bytes();
        out.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).into_bytes());
        if !head_only {
            out.extend(&self.body);
        }
        to.write_all(&out)?;
        to.flush()
    }
}

/// The head of an answer without its last line. It forbids caches, frames and guesses of the type.
pub(super) fn head(status: &str, kind: &str, headers: &[(&'static str, String)]) -> String {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\n\
         Connection: close\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n"
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A text with %XX and + decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let hex = pair.filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let (byte, after) = match (first, byte) {
            (b'%', Some(byte)) => (byte, &after[2..]),
            (b'+', _) => (b' ', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text with %XX in place of special characters.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_in_any_pieces() {
        let text = b"GET /run?id=a%2Fb+c&id=%zz&x HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(Request::parse(&text[..cut]).unwrap(), None, "{cut}");
        }
        let request = Request::read(&mut text.chain(io::empty())).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/run"));
        assert_eq!(request.queries("id").collect::<Vec<_>>(), ["a/b c", "%zz"]);
        assert_eq!((request.query("x"), request.query("y")), (Some(""), None));
        assert_eq!(request.header("host"), Some("localhost"));
        assert_eq!(Request::read(&mut io::empty()).unwrap(), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 40_000]].concat();
        let many = "X: y\r\n".repeat(100);
        let many = format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes();
        let hosts = b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: elsewhere\r\n\r\n";
        for bytes in [&b"\x00\x01\r\n\r\n"[..], b"GET / HTTP/1.1\r\n", &long, &many, hosts] {
            assert!(Request::read(&mut &*bytes).is_err(), "{:?}", bytes.get(..20));
        }
    }

    #[test]
    fn an_address_without_its_token_keeps_the_rest() {
        let text = b"GET /run?id=a%26b%0D%0A&token=x HTTP/1.1\r\n\r\n";
        let request = Request::parse(text).unwrap().unwrap();
        assert_eq!(request.without_token(), "/run?id=a%26b%0D%0A");
        let text = b"GET /?token=x HTTP/1.1\r\n\r\n";
        assert_eq!(Request::parse(text).unwrap().unwrap().without_token(), "/");
    }
}
