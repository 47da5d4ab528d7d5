//! Actions that a session has ready for its driver, in fixed memory.
use crate::session::{Closed, Note};

/// At most one note, then text of at most `N` octets, then one more thing: what one command of a client leads to.
#[derive(Debug)]
pub struct Outbox<const N: usize> {
    note: Option<Note>,
    text: heapless::Vec<u8, N>,
    /// The text is on its way, and is forgotten at the next look.
    taken: bool,
    then: Option<Then>,
}

/// What comes after the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    /// [`crate::session::Action::StartTls`].
    StartTls,
    /// [`crate::session::Action::Login`].
    Login,
    /// [`crate::session::Action::Relay`].
    Relay,
    /// [`crate::session::Action::Close`].
    Close(Closed),
}

/// The next thing in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// A note.
    Note(Note),
    /// [`Outbox::text`] is to be sent.
    Text,
    /// The last thing.
    Then(Then),
}

impl<const N: usize> Default for Outbox<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Outbox<N> {
    /// Nothing waits.
    pub const fn new() -> Self {
        Self { note: None, text: heapless::Vec::new(), taken: false, then: None }
    }

    /// Adds text. A part that does not fit is left out whole; `N` must hold the protocol's longest reply.
    pub fn say(&mut self, parts: &[&[u8]]) {
        for part in parts {
            let _ = self.text.extend_from_slice(part);
        }
    }

    /// Tells a note, unless a more telling one is there already.
    pub fn note(&mut self, note: Note) {
        self.note.get_or_insert(note);
    }

    /// Sets what comes after the text.
    pub const fn then(&mut self, then: Then) {
        self.then = Some(then);
    }

    /// Takes back all that was not taken yet.
    pub fn recall(&mut self) {
        *self = Self::new();
    }

    /// The text that waits, or that [`Waiting::Text`] has just named.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Takes the next thing.
    pub fn take(&mut self) -> Option<Waiting> {
        if let Some(note) = self.note.take() {
            return Some(Waiting::Note(note));
        }
        if !self.text.is_empty() && !self.taken {
            self.taken = true;
            return Some(Waiting::Text);
        }
        self.text.clear();
        self.taken = false;
        self.then.take().map(Waiting::Then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_and_once() {
        let mut outbox = Outbox::<8>::new();
        outbox.then(Then::Relay);
        outbox.say(&[b"abc", b"too long", b"de"]);
        outbox.note(Note::ClientIdInClear);
        outbox.note(Note::Malformed);
        assert_eq!(outbox.take(), Some(Waiting::Note(Note::ClientIdInClear)));
        assert_eq!(outbox.take(), Some(Waiting::Text));
        assert_eq!(outbox.text(), b"abcde");
        assert_eq!(outbox.take(), Some(Waiting::Then(Then::Relay)));
        assert_eq!((outbox.take(), outbox.text()), (None, &b""[..]));
        outbox.say(&[b"x"]);
        outbox.recall();
        assert_eq!(outbox.take(), None);
    }
}
