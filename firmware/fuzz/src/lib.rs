//! What the fuzz targets share: they run a machine twice over the same octets, whole and cut, and compare.
//!
//! The first octet of an input chooses the state to start in, the second how the octets are cut; the rest is what the
//! peer says. A target panics when a promise is broken; libFuzzer keeps the input.
#![allow(clippy::panic, clippy::missing_panics_doc)] // that is how a target reports

use mail::session::{Action, Answer, Backend, Job, Outcome, Session, Step, Transport};

/// An input taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Chooses the state to start in.
    pub start: u8,
    /// Pieces have one more octet than this.
    pub cut: u8,
    /// What the peer says.
    pub octets: &'a [u8],
}

impl<'a> Input<'a> {
    /// `None` if there is nothing to run.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        match data {
            [start, cut, octets @ ..] => Some(Self { start: *start, cut: *cut, octets }),
            _ => None,
        }
    }

    /// What the peer says, behind the words that lead to the chosen state.
    pub fn behind(&self, states: &[&[u8]]) -> Vec<u8> {
        let words = states.get(usize::from(self.start) % states.len()).copied().unwrap_or_default();
        [words, self.octets].concat()
    }
}

/// Runs a session over `octets` in pieces of `piece` and tells all it did, adjacent Sends joined.
///
/// Promises: every Send is whole lines and under 8 KiB; in clear no login; nothing after Close; progress with every piece.
pub fn run_session<S: Session>(
    mut session: S,
    transport: Transport,
    offer: &S::Offer,
    octets: &[u8],
    piece: usize,
) -> Vec<u8> {
    let (mut told, mut tls, mut left) = (Vec::new(), transport == Transport::Tls, octets);
    let mut last_send = 0;
    loop {
        let mut relaying = false;
        let mut handshake = false;
        let mut user = None;
        while let Some(action) = session.next(offer) {
            match action {
                Action::Send(text) => {
                    assert!(text.ends_with(b"\r\n") && text.len() <= 8192, "odd text");
                    last_send = told.len();
                    told.extend_from_slice(text);
                }
                Action::Note(note) => tell(&mut told, format_args!("[{note:?}]")),
                Action::StartTls => {
                    assert!(!tls, "TLS twice");
                    handshake = true;
                }
                Action::Login(login) => {
                    assert!(tls, "login in clear");
                    assert!(!login.user.is_empty(), "nobody logs in");
                    tell(&mut told, format_args!("[{:?} {:?}", login.mechanism, login.user));
                    tell(&mut told, format_args!(" {:?} {:?}", login.authzid, login.secret));
                    let id = login.clientid.map(|id| (id.kind.clone(), id.token.expose().to_vec()));
                    tell(&mut told, format_args!(" {id:?} {:?}]", login.label));
                    user = login.user.first().copied();
                }
                Action::Relay => {
                    tell(&mut told, format_args!("[relay]"));
                    relaying = true;
                }
                Action::Close(closed) => {
                    tell(&mut told, format_args!("[{closed:?}]"));
                    assert!(session.next(offer).is_none(), "something after the end");
                    return told;
                }
            }
            if let Some(user) = user.take() {
                session.answer(match user % 4 {
                    0 => Answer::Failed,
                    1 => Answer::Unavailable,
                    2 => Answer::FailedLast,
                    _ => Answer::Admitted { untagged: b"* OK x\r\n", text: b"[CAPABILITY CLIENTID X] in" },
                });
            }
        }
        if relaying {
            told.extend_from_slice(session.rest());
            told.extend_from_slice(left);
            return told;
        }
        if handshake && left.is_empty() {
            tell(&mut told, format_args!("[tls]"));
            session.tls_established();
            tls = true;
            continue;
        }
        if handshake {
            // Cut here, the injection shows only when it comes; in one piece the go-ahead was never sent.
            told.truncate(last_send);
        }
        if left.is_empty() {
            return told;
        }
        let taken = session.push(left.get(..piece.min(left.len())).unwrap_or_default());
        assert!(taken > 0, "stuck with a full buffer");
        left = left.get(taken..).unwrap_or_default();
    }
}

/// Runs our side over a backend's `octets` in pieces of `piece` and tells all it did.
pub fn run_backend<B: Backend>(mut backend: B, job: &Job<'_>, octets: &[u8], piece: usize) -> Vec<u8> {
    let (mut told, mut left) = (Vec::new(), octets);
    loop {
        let mut handshake = false;
        while let Some(step) = backend.next(job) {
            match step {
                Step::Send(text) => {
                    assert!(text.ends_with(b"\r\n"), "odd text");
                    told.extend_from_slice(text);
                }
                Step::StartTls => handshake = true,
                Step::Done(Outcome::Accepted { untagged, text }) => {
                    tell(&mut told, format_args!("[accepted {untagged:?} {text:?}]"));
                    told.extend_from_slice(backend.rest());
                    told.extend_from_slice(left);
                    return told;
                }
                Step::Done(outcome) => {
                    tell(&mut told, format_args!("[{outcome:?}]"));
                    assert!(backend.next(job).is_none(), "something after the end");
                    return told;
                }
            }
        }
        if handshake && left.is_empty() {
            tell(&mut told, format_args!("[tls]"));
            backend.tls_established();
            continue;
        }
        if left.is_empty() {
            return told;
        }
        let taken = backend.push(left.get(..piece.min(left.len())).unwrap_or_default());
        assert!(taken > 0, "stuck with a full buffer");
        left = left.get(taken..).unwrap_or_default();
    }
}

/// Adds words to what is told.
fn tell(told: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    told.extend_from_slice(words.to_string().as_bytes());
}

/// Fails if the octets came to something else in pieces than whole.
pub fn assert_same(whole: &[u8], cut: &[u8]) {
    assert!(whole == cut, "whole: {}\ncut: {}", whole.escape_ascii(), cut.escape_ascii());
}
