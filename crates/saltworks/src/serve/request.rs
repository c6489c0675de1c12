//! A request as the pages see it: the parts of its address, and its headers.

use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, header};
use std::borrow::Cow;

/// A request. Its body, if it has one, is never read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The part before the question mark, not decoded.
    pub(super) path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

impl Request {
    /// The request with this head.
    ///
    /// # Errors
    /// Why it is not answered: it names more than one host (RFC 9112, 3.2).
    pub(super) fn new(head: Parts) -> Result<Self, &'static str> {
        let Parts { method, uri, headers, .. } = head;
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err("the request names more than one host");
        }
        // An address that names a host is for proxies. It is the path of no page.
        let path = match uri.authority() {
            Some(_) => uri.to_string(),
            None => uri.path().to_owned(),
        };
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Ok(Self { method, path, query: query.into_owned().collect(), headers })
    }

    /// A header's value. Bytes that are not UTF-8 are replaced: other programs' cookies may have
    /// some.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<Cow<'_, str>> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
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
        let mut rest = self.query.iter().filter(|(name, _)| name != "token").peekable();
        if rest.peek().is_none() {
            return self.path.clone();
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(rest).finish();
        format!("{}?{query}", self.path)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The request with the head `GET /path HTTP/1.1`, and a line for each header.
    pub(in super::super) fn request(head: &str) -> Request {
        parsed(head).unwrap()
    }

    fn parsed(head: &str) -> Result<Request, &'static str> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap().split(' ');
        let [method, uri] = [(); 2].map(|()| words.next().unwrap());
        let mut builder = hyper::Request::builder().method(method).uri(uri);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            builder = builder.header(name, value);
        }
        Request::new(builder.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn an_address_is_taken_apart() {
        let request = request("GET /run?id=a%2Fb+c&id=%zz&x HTTP/1.1\r\nHost: localhost");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/run"));
        assert_eq!(request.queries("id").collect::<Vec<_>>(), ["a/b c", "%zz"]);
        assert_eq!((request.query("x"), request.query("y")), (Some(""), None));
        assert_eq!(request.header(header::HOST).as_deref(), Some("localhost"));
    }

    #[test]
    fn two_hosts_are_refused_and_an_address_for_proxies_is_no_page() {
        assert!(parsed("GET / HTTP/1.1\r\nHost: localhost\r\nhost: elsewhere").is_err());
        let elsewhere = request("GET http://elsewhere/ HTTP/1.1\r\nHost: localhost");
        assert_eq!(elsewhere.path, "http://elsewhere/");
    }

    #[test]
    fn an_address_without_its_token_keeps_the_rest() {
        let address = |head: &str| request(head).without_token();
        let kept = address("GET /run?id=a%26b%0D%0A&token=x HTTP/1.1");
        assert_eq!(kept, "/run?id=a%26b%0D%0A");
        assert_eq!(address("GET /?token=x HTTP/1.1"), "/");
    }
}
