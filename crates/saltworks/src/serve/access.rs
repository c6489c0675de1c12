//! Who may read: readers on this machine, or readers with the token.

use super::request::Request;
use hyper::header::{AUTHORIZATION, COOKIE, HOST};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

/// The start of the name of the cookie that holds the token.
const COOKIE_NAME: &str = "saltworks-token";

/// The rule by which requests are allowed.
#[derive(Clone, Debug)]
pub struct Access {
    token: Option<String>,
    /// Names of this machine other than `localhost`.
    names: Vec<String>,
    /// Part of the cookie's name: browsers send a machine's cookies to all its ports.
    port: u16,
}

/// The decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Allowed,
    /// Its address holds the token. The browser gets a cookie, and the address without the token.
    SetCookie,
    /// It is refused for this reason.
    Refused(&'static str),
}

impl Access {
    /// Allows requests whose host is this machine. Other hosts are refused, so that no page
    /// elsewhere reads through a name that resolves to this machine.
    pub fn local() -> Self {
        Self { token: None, names: Vec::new(), port: 0 }
    }

    /// Allows requests with this token.
    pub fn token(token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::local() }
    }

    /// Adds the host and the address of the server.
    pub(super) fn at(mut self, host: &str, address: SocketAddr) -> Self {
        self.names = vec![host.to_ascii_lowercase(), address.ip().to_string()];
        self.port = address.port();
        self
    }

    /// A new token: 128 random bits of the system.
    ///
    /// # Errors
    /// A system without random bits.
    pub fn new_token() -> io::Result<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    pub(super) fn verdict(&self, request: &Request) -> Verdict {
        let Some(token) = &self.token else {
            return match request.header(HOST).is_some_and(|host| self.is_this_machine(&host)) {
                true => Verdict::Allowed,
                false => Verdict::Refused(
                    "This page is for its own machine only. Open http://localhost with the port.",
                ),
            };
        };
        let authorization = request.header(AUTHORIZATION).unwrap_or_default();
        let bearer = authorization.strip_prefix("Bearer ");
        let cookies = request.header(COOKIE).unwrap_or_default();
        let mut cookies = cookies.split("; ").filter_map(|cookie| cookie.split_once('='));
        let wanted = self.cookie_name();
        if bearer.is_some_and(|given| same(given, token))
            || cookies.any(|(name, given)| name == wanted && same(given, token))
        {
            return Verdict::Allowed;
        }
        match request.query("token") {
            Some(given) if same(given, token) => Verdict::SetCookie,
            _ => Verdict::Refused(
                "This page needs the token that `saltworks serve` printed, or that it was given by \
                 --token or SALTWORKS_TOKEN. Add ?token=... to the address.",
            ),
        }
    }

    /// The header that gives a browser the token.
    pub(super) fn cookie(&self) -> String {
        let token = self.token.as_deref().unwrap_or_default();
        format!("{}={token}; HttpOnly; SameSite=Strict; Path=/", self.cookie_name())
    }

    fn cookie_name(&self) -> String {
        format!("{COOKIE_NAME}-{}", self.port)
    }

    fn is_this_machine(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.to_ascii_lowercase();
        ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()) || self.names.contains(&name)
    }
}

/// Compares two tokens in a time that does not depend on where they differ.
fn same(given: &str, token: &str) -> bool {
    let differ = given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::request;
    use super::*;

    fn verdict_of(access: &Access, head: &str) -> Verdict {
        access.verdict(&request(head))
    }

    /// A script must not read the token, and no other site may send it.
    #[test]
    fn the_cookie_is_for_no_script_and_no_other_site() {
        let access = Access::token("s3cret").at("box", "127.0.0.1:8384".parse().unwrap());
        let wanted = "saltworks-token-8384=s3cret; HttpOnly; SameSite=Strict; Path=/";
        assert_eq!(access.cookie(), wanted);
    }

    #[test]
    fn without_a_token_only_this_machines_names_are_answered() {
        let access = Access::local();
        for host in ["localhost:80", "127.0.0.1", "[::1]:8384", "LocalHost"] {
            let verdict = verdict_of(&access, &format!("GET / HTTP/1.1\r\nHost: {host}"));
            assert_eq!(verdict, Verdict::Allowed, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8384", "192.168.0.3", ""] {
            let verdict = verdict_of(&access, &format!("GET / HTTP/1.1\r\nHost: {host}"));
            assert!(matches!(verdict, Verdict::Refused(_)), "{host}");
        }
        assert!(matches!(verdict_of(&access, "GET / HTTP/1.1"), Verdict::Refused(_)));
        let named = access.at("Box", "127.0.1.1:8384".parse().unwrap());
        for host in ["box:8384", "127.0.1.1:8384"] {
            let verdict = verdict_of(&named, &format!("GET / HTTP/1.1\r\nHost: {host}"));
            assert_eq!(verdict, Verdict::Allowed, "{host}");
        }
    }

    #[test]
    fn a_token_may_come_in_the_address_a_header_or_a_cookie() {
        let access = Access::token("s3cret").at("box", "127.0.0.1:8384".parse().unwrap());
        let verdict = |head: &str| verdict_of(&access, head);
        assert_eq!(verdict("GET /run?id=a&token=s3cret HTTP/1.1"), Verdict::SetCookie);
        let bearer = "GET / HTTP/1.1\r\nAuthorization: Bearer s3cret";
        assert_eq!(verdict(bearer), Verdict::Allowed);
        let cookie = "GET / HTTP/1.1\r\nCookie: a=b; saltworks-token-8384=s3cret";
        assert_eq!(verdict(cookie), Verdict::Allowed);
        for head in [
            "GET / HTTP/1.1\r\nHost: localhost",
            "GET /?token=s3cre HTTP/1.1",
            "GET /?token= HTTP/1.1",
            "GET / HTTP/1.1\r\nCookie: saltworks-token-8384=s3cretx",
            "GET / HTTP/1.1\r\nCookie: saltworks-token-8385=s3cret",
            "GET / HTTP/1.1\r\nAuthorization: s3cret",
        ] {
            let Verdict::Refused(why) = verdict(head) else { panic!("{head}") };
            assert!(why.contains("given by --token or SALTWORKS_TOKEN"), "{why}");
        }
    }

    #[test]
    fn tokens_differ() {
        let [one, two] = [(); 2].map(|()| Access::new_token().unwrap());
        assert_eq!((one.len(), one == two), (32, false));
    }
}
