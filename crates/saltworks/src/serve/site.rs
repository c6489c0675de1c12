//! The pages and data under each address.

use super::access::{Access, Verdict};
use super::http::{Request, Response};
use super::library::Library;
use crate::report::html;
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
    library: Library,
    access: Access,
}

/// The answer to a request.
pub(super) enum Answer {
    Page(Response),
    /// Changes of these runs, or of all if none is named.
    Events(Vec<String>),
}

impl Site {
    pub(super) fn new(library: Library, access: Access) -> Self {
        Self { library, access }
    }

    pub(super) fn version(&self, ids: &[String]) -> u64 {
        self.library.version(ids)
    }

    pub(super) fn is_training(&self, ids: &[String]) -> bool {
        self.library.is_training(ids)
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        Answer::Page(match (request.method.as_str(), self.access.verdict(request)) {
            (_, Verdict::Refused(why)) => Response::text("403 Forbidden", why),
            ("GET" | "HEAD", verdict) => match self.found(request) {
                Some(_) if verdict == Verdict::SetCookie => self.set_cookie(request),
                Some(answer) => return answer,
                None => missing(&request.path),
            },
            _ => Response::text("405 Method Not Allowed", "Only GET and HEAD are answered."),
        })
    }

    /// Redirects to the same address without the token, and sets the cookie.
    fn set_cookie(&self, request: &Request) -> Response {
        let mut response = Response::text("303 See Other", "Welcome.");
        response.headers.push(("Set-Cookie", self.access.cookie()));
        response.headers.push(("Location", request.without_token()));
        response
    }

    fn found(&self, request: &Request) -> Option<Answer> {
        let id = || request.query("id");
        let ids = || request.queries("id").map(str::to_owned).collect::<Vec<_>>();
        Some(Answer::Page(match request.path.as_str() {
            "/" => page(&json!(self.library.rows(None)), INDEX),
            "/run" => {
                let ids = ids();
                let few = (1..=MOST_COMPARED).contains(&ids.len());
                let known = ids.iter().any(|id| self.library.holds(id));
                (few && known)
                    .then(|| page(&json!({"live": true, "runs": [], "ids": ids}), LIVE))?
            }
            "/api/runs" => {
                let version = request.query("since").and_then(|since| since.parse().ok());
                as_json(&self.library.rows(request.query("epoch").zip(version)))
            }
            "/api/settings" => as_json(&self.library.settings()),
            "/api/run" => match self.library.run(id()?)? {
                Ok(run) => as_json(&run),
                Err(error) => {
                    let text = format!("The run cannot be read: {error}.");
                    Response::text("500 Internal Server Error", &text)
                }
            },
            "/api/pictures" => {
                Response::ok(JSON, self.library.pictures(id()?, request.query("stage")?)?)
            }
            "/events" => return Some(Answer::Events(ids())),
            // Browsers request it; without an answer they report an error.
            "/favicon.ico" => Response::ok("image/x-icon", ""),
            _ => return None,
        }))
    }
}

/// The answer for an address without a page: a page for people, a line for programs.
fn missing(path: &str) -> Response {
    let status = "404 Not Found";
    match path.starts_with("/api/") {
        true => Response::text(status, "There is no such run."),
        false => Response { status, ..page(&json!({}), MISSING) },
    }
}

fn page(data: &serde_json::Value, script: &str) -> Response {
    let mut scripts = html::SCRIPTS.to_vec();
    scripts.extend([NEWS, script]);
    Response::ok(HTML, html::page(&data.to_string(), &scripts.concat()))
}

fn as_json(value: &impl Serialize) -> Response {
    // Numbers and strings always become JSON.
    Response::ok(JSON, serde_json::to_vec(value).expect("a run as JSON"))
}
