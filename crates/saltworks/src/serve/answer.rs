//! An answer to a request: its headers, and a body that takes little memory however slowly it is
//! read.

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_blocking;

/// Every answer forbids caches, frames, guesses of its type, and use by pages elsewhere.
const SECURITY: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// The most bytes that are handed to a socket at once.
const PIECE: usize = 64 << 10;
/// The most bytes of all bodies that are being sent, those that are small not counted. (guess)
const MOST_HELD: usize = 256 << 20;
/// A body of so few bytes is sent in any case. All connections together hold 64 MiB of them.
const MOST_SMALL: usize = 128 << 10;

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) content: Content,
    /// More headers.
    pub(super) headers: Vec<(HeaderName, String)>,
}

/// What an answer says.
#[derive(Debug)]
pub(super) enum Content {
    /// Bytes that are there.
    Bytes(Arc<Vec<u8>>),
    /// An open file of this many bytes.
    File(File, u64),
    /// Changes of these runs, or of all if none is named.
    Events(Vec<String>),
}

impl Answer {
    pub(super) fn ok(kind: &'static str, content: Content) -> Self {
        Self { status: StatusCode::OK, kind, content, headers: Vec::new() }
    }

    /// A sentence for people.
    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        let content = Content::Bytes(Arc::new(format!("{text}\n").into_bytes()));
        Self { status, ..Self::ok("text/plain; charset=utf-8", content) }
    }

    /// The answer while there is no place for another reader.
    pub(super) fn busy() -> Self {
        let text = "Too many pages are open. Close some, and load this one again.";
        Self::text(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// Its head and its body. `events` follows the changes of runs.
    pub(super) fn with_body(self, events: impl FnOnce(Vec<String>) -> Body) -> Response<Body> {
        let body = match self.content {
            Content::Bytes(bytes) => Body::of(bytes),
            Content::File(file, length) => Body::of_file(file, length),
            Content::Events(ids) => events(ids),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(SECURITY.map(|(name, value)| (name, HeaderValue::from_static(value))));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        for (name, value) in self.headers {
            // Addresses are encoded, and tokens are plain.
            let value = HeaderValue::try_from(value).expect("a header of visible letters");
            headers.insert(name, value);
        }
        response
    }
}

/// The bodies that are being sent. Equal ones are held once, so that readers of one page, however
/// many and slow, take the memory of one.
#[derive(Debug, Default)]
pub(super) struct HeldBodies {
    held: Mutex<Vec<Weak<Vec<u8>>>>,
}

impl HeldBodies {
    /// Holds a body until it is sent. `None` if there is no room for it beside the others.
    pub(super) fn hold(&self, mut body: Vec<u8>) -> Option<Arc<Vec<u8>>> {
        body.shrink_to_fit();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|other| other.strong_count() > 0);
        let others: Vec<Arc<Vec<u8>>> = held.iter().filter_map(Weak::upgrade).collect();
        if let Some(same) = others.iter().find(|other| ***other == body) {
            return Some(Arc::clone(same));
        }
        let bytes: usize = others.iter().map(|other| other.len()).sum();
        // A body that is larger than all room is sent alone, and a small one always.
        if bytes > 0 && body.len() > MOST_SMALL && bytes + body.len() > MOST_HELD {
            return None;
        }
        let body = Arc::new(body);
        held.push(Arc::downgrade(&body));
        Some(body)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// What is left of bytes that are there.
    Whole(Bytes),
    /// Pieces that are made while the reader takes them, of this length if it is known.
    Pieces(Receiver<io::Result<Bytes>>, Option<u64>),
}

/// The owner of a body's bytes.
struct HeldBody(Arc<Vec<u8>>);

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Body {
    fn of(bytes: Arc<Vec<u8>>) -> Self {
        Self::Whole(Bytes::from_owner(HeldBody(bytes)))
    }

    fn of_file(file: File, length: u64) -> Self {
        let (to, pieces) = channel(1);
        tokio::spawn(send_file(file, length, to));
        Self::Pieces(pieces, Some(length))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(rest) if rest.is_empty() => Poll::Ready(None),
            Self::Whole(rest) => {
                let piece = rest.split_to(rest.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Pieces(pieces, _) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Self::Pieces(_, Some(length)) => SizeHint::with_exact(*length),
            Self::Pieces(_, None) => SizeHint::default(),
        }
    }
}

/// Reads a file piece by piece, until all is read or the reader has gone.
async fn send_file(mut file: File, length: u64, to: Sender<io::Result<Bytes>>) {
    let mut left = length;
    while left > 0 {
        let most = left.min(PIECE as u64);
        let read = move || {
            let mut piece = Vec::with_capacity(most as usize);
            let result = (&file).take(most).read_to_end(&mut piece).and_then(|read| match read {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(Bytes::from(piece)),
            });
            (file, result)
        };
        let Ok((back, piece)) = spawn_blocking(read).await else { return };
        file = back;
        left = piece.as_ref().map_or(0, |piece| left - piece.len() as u64);
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_one_page_take_the_memory_of_one() {
        let bodies = HeldBodies::default();
        let page = vec![7; 100 << 20];
        let first = bodies.hold(page.clone()).unwrap();
        let second = bodies.hold(page).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let other = bodies.hold(vec![8; 100 << 20]).unwrap();
        assert!(bodies.hold(vec![9; 100 << 20]).is_none(), "no room for three");
        drop(other);
        assert!(bodies.hold(vec![9; 100 << 20]).is_some(), "one was sent");
        drop((first, second));
        let alone = bodies.hold(vec![1; MOST_HELD + 1]);
        assert!(alone.is_some());
        assert!(bodies.hold(vec![2; MOST_SMALL]).is_some(), "small, beside any other");
        assert!(bodies.hold(vec![2; MOST_SMALL + 1]).is_none());
    }
}
