//! The pages and data under each address.

use super::access::{Access, Verdict};
use super::answer::{Answer, Content, HeldBodies};
use super::library::Library;
use super::request::Request;
use crate::report::html;
use hyper::header::{LOCATION, REFRESH, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const INDEX: &str = include_str!("index.js");
const NEWS: &str = include_str!("news.js");
const LIVE: &str = include_str!("live.js");
const MISSING: &str = include_str!("missing.js");
/// The most runs that a page compares.
const MOST_COMPARED: usize = 12;

/// The pages and their data.
pub(super) struct Site {
    pub(super) library: Library,
    access: Access,
    bodies: HeldBodies,
}

/// What a stream of events reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The new version, if anything changed.
    pub(super) version: Option<u64>,
    /// Whether more is to come soon.
    pub(super) lasts: bool,
}

impl Site {
    pub(super) fn new(library: Library, access: Access) -> Self {
        Self { library, access, bodies: HeldBodies::default() }
    }

    /// What changed of these runs, or of all if none is named, since a version.
    pub(super) fn news(&self, ids: &[String], sent: Option<u64>) -> News {
        let version = Some(self.library.version(ids)).filter(|version| sent != Some(*version));
        // All runs together change when the last of them ends. To ask each one would take long.
        let lasts = (version.is_none() && ids.is_empty())
            || self.library.is_training(ids)
            || self.library.reading().is_some();
        News { version, lasts }
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        match (&request.method, self.access.verdict(request)) {
            (_, Verdict::Refused(why)) => Answer::text(StatusCode::FORBIDDEN, why),
            (&Method::GET | &Method::HEAD, verdict) => match self.found(request) {
                Some(_) if verdict == Verdict::SetCookie => self.set_cookie(request),
                Some(answer) => answer,
                None => self.missing(&request.path),
            },
            _ => {
                let text = "Only GET and HEAD are answered.";
                Answer::text(StatusCode::METHOD_NOT_ALLOWED, text)
            }
        }
    }

    /// Redirects to the same address without the token, and sets the cookie.
    fn set_cookie(&self, request: &Request) -> Answer {
        let mut answer = Answer::text(StatusCode::SEE_OTHER, "Welcome.");
        answer.headers.push((SET_COOKIE, self.access.cookie()));
        answer.headers.push((LOCATION, request.without_token()));
        answer
    }

    fn found(&self, request: &Request) -> Option<Answer> {
        let id = || request.query("id");
        let ids = || request.queries("id").map(str::to_owned).collect::<Vec<_>>();
        Some(match request.path.as_str() {
            "/" => self.page(&json!(self.library.rows(None)), INDEX),
            "/run" => {
                let ids = ids();
                let few = (1..=MOST_COMPARED).contains(&ids.len());
                // Each of them may wait for a reading of the runs.
                let known = || ids.iter().any(|id| self.library.holds(id));
                let data = || json!({"live": true, "runs": [], "ids": ids});
                (few && known()).then(|| self.page(&data(), LIVE))?
            }
            "/api/runs" => {
                let version = request.query("since").and_then(|since| since.parse().ok());
                self.json(&self.library.rows(request.query("epoch").zip(version)))
            }
            "/api/settings" => self.json(&self.library.settings()),
            "/api/run" => match self.library.run(id()?)? {
                Ok(run) => self.json(&run),
                Err(error) => {
                    let text = format!("The run cannot be read: {error}.");
                    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, &text)
                }
            },
            "/api/pictures" => {
                let (file, length) = self.library.pictures(id()?, request.query("stage")?)?;
                Answer::ok(JSON, Content::File(file, length))
            }
            "/events" => Answer::ok("text/event-stream", Content::Events(ids())),
            // Browsers request it; without an answer they report an error.
            "/favicon.ico" => self.held("image/x-icon", Vec::new()),
            _ => return None,
        })
    }

    /// The answer for an address without a page: a page for people, a line for programs. During the
    /// first reading, the run may still be found.
    fn missing(&self, path: &str) -> Answer {
        let reading = self.library.reading();
        let status = match reading {
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::NOT_FOUND,
        };
        let mut answer = match (path.starts_with("/api/"), reading) {
            (true, None) => Answer::text(status, "There is no such run."),
            (true, Some(_)) => {
                Answer::text(status, "The runs are still being read. Ask again in a moment.")
            }
            (false, _) => Answer { status, ..self.page(&json!({ "reading": reading }), MISSING) },
        };
        if reading.is_some() {
            answer.headers.extend([(RETRY_AFTER, "2".to_owned()), (REFRESH, "2".to_owned())]);
        }
        answer
    }

    fn page(&self, data: &serde_json::Value, script: &str) -> Answer {
        let mut scripts = html::SCRIPTS.to_vec();
        scripts.extend([NEWS, script]);
        self.held(HTML, html::page(&data.to_string(), &scripts.concat()).into_bytes())
    }

    fn json(&self, value: &impl Serialize) -> Answer {
        // Numbers and strings always become JSON.
        self.held(JSON, serde_json::to_vec(value).expect("a run as JSON"))
    }

    fn held(&self, kind: &'static str, body: Vec<u8>) -> Answer {
        let held = self.bodies.hold(body).map(Content::Bytes);
        held.map_or_else(Answer::busy, |content| Answer::ok(kind, content))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Links;
    use super::super::library::tests::run;
    use super::super::request::tests::request;
    use super::*;

    #[test]
    fn while_the_runs_are_read_pages_say_so_and_load_again() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let site = Site::new(Library::new(root.path(), Links::Inside).unwrap(), Access::local());
        let answer = |path: &str| {
            let answer = site.answer(&request(&format!("GET {path} HTTP/1.1\r\nHost: localhost")));
            let Content::Bytes(body) = answer.content else { panic!("{path}: no bytes") };
            let again = answer.headers.contains(&(REFRESH, "2".to_owned()));
            (answer.status.as_u16(), again, String::from_utf8(body.to_vec()).unwrap())
        };
        let (status, _, index) = answer("/");
        assert!(status == 200 && index.contains("\"reading\":{\"folders\":0"), "{status}");
        for path in ["/run?id=one", "/api/run?id=one"] {
            let (status, again, body) = answer(path);
            assert!(
                status == 503 && again && body.contains("still being read"),
                "{path}: {status}"
            );
        }
        site.library.read_all();
        assert_eq!((answer("/run?id=one").0, answer("/api/run?id=one").0), (200, 200));
        let (status, again, _) = answer("/run?id=two");
        assert!(status == 404 && !again);
        assert!(answer("/").2.contains("\"reading\":null"));
    }

    #[test]
    fn an_address_with_the_token_leads_to_the_same_run_without_it() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = Library::new(root.path(), Links::Inside).unwrap();
        library.read_all();
        let site = Site::new(library, Access::token("s3cret"));
        let answer = site.answer(&request("GET /run?id=one&token=s3cret HTTP/1.1\r\nHost: box"));
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        let leads = answer.headers.iter().find(|(name, _)| *name == LOCATION);
        assert_eq!(leads.map(|(_, address)| address.as_str()), Some("/run?id=one"));
    }
}
