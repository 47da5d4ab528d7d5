//! Frames: a length of four octets, big-endian, then that many octets of JSON, `{"version":1,"body":…}`.
//!
//! Octets in, messages out, no socket: [`Frames::push`] what was read, [`Frames::take`] until it yields `None`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the contract. It changes when an old client or gateway would misread a new one.
pub const VERSION: u16 = 1;

/// Octets of JSON in one frame; a longer one is an attack or a bug, and is refused before its content is taken.
pub const LARGEST: usize = 1 << 20;

/// Why a frame is no message. After any of these the stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over [`LARGEST`].
    #[error("a frame of {0} octets is over the limit")]
    TooLarge(usize),
    /// The other side speaks another version.
    #[error("the other side speaks version {0} of the control contract, and this one is {VERSION}")]
    Version(u16),
    /// Not JSON, or not of the contract's shape.
    #[error("not a message of the control contract: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    version: u16,
    body: &'a T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

#[derive(Deserialize)]
struct Incoming<T> {
    body: T,
}

/// A message as a frame.
///
/// # Errors
/// Only if the message is over [`LARGEST`]: lists go in pages ([`crate::Page`]).
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &Outgoing { version: VERSION, body: message })?;
    let octets = frame.len() - 4;
    match u32::try_from(octets) {
        Ok(length) if octets <= LARGEST => {
            for (to, from) in frame.iter_mut().zip(length.to_be_bytes()) {
                *to = from;
            }
            Ok(frame)
        }
        _ => Err(FrameError::TooLarge(octets)),
    }
}

/// Frames being gathered from a stream. Holds at most one frame and what was pushed behind it.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more octets arrive.
    ///
    /// # Errors
    /// What is not a message of this version; the connection is then to be closed.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        // A length that does not fit the machine is too large as well.
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(FrameError::TooLarge(length));
        }
        let Some(json) = rest.get(..length) else { return Ok(None) };
        // The version first: another version may have another shape.
        let VersionOnly { version } = serde_json::from_slice(json)?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let Incoming { body } = serde_json::from_slice(json)?;
        self.buffer.drain(..4 + length);
        Ok(Some(body))
    }

    /// Whether the stream stands between two frames: the only place where the other side may hang up politely.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Chunk, Request};

    #[test]
    fn a_known_frame() {
        let frame = encode(&Request::Health).unwrap();
        assert_eq!(&frame[..4], [0, 0, 0, 38]);
        assert_eq!(&frame[4..], br#"{"version":1,"body":{"verb":"health"}}"#);
    }

    #[test]
    fn another_version_is_told_before_its_shape_is_looked_at() {
        let json = br#"{"version":2,"body":{"something":"new"}}"#;
        let mut frames = Frames::new();
        frames.push(&u32::try_from(json.len()).unwrap().to_be_bytes());
        frames.push(json);
        assert!(matches!(frames.take::<Request>(), Err(FrameError::Version(2))));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_content() {
        let mut frames = Frames::new();
        frames.push(&(u32::try_from(LARGEST).unwrap() + 1).to_be_bytes());
        assert!(matches!(frames.take::<Request>(), Err(FrameError::TooLarge(_))));
        let text = "x".repeat(LARGEST);
        let too_large = Request::Import(Chunk { text, last: true });
        assert!(matches!(encode(&too_large), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn a_chunk_fits_however_it_is_escaped() {
        let text = "\u{1}".repeat(Chunk::OCTETS);
        assert!(encode(&Request::Import(Chunk { text, last: true })).is_ok());
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for body in ["null", "{}", r#"{"verb":"reboot"}"#, r#"{"verb":"devices-list"}"#] {
            let json = format!(r#"{{"version":1,"body":{body}}}"#);
            let mut frames = Frames::new();
            frames.push(&u32::try_from(json.len()).unwrap().to_be_bytes());
            frames.push(json.as_bytes());
            assert!(matches!(frames.take::<Request>(), Err(FrameError::Malformed(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(cuts in prop::collection::vec(0_usize..400, 0..12), name in ".{0,40}") {
            let requests = [
                Request::DevicesRename { account: "alice@example.net".into(), device: "7f3k9q".into(), name },
                Request::Events { account: None, since: Some(5), limit: 9, follow: true },
                Request::AccountsList,
            ];
            let stream = requests.iter().flat_map(|request| encode(request).unwrap()).collect::<Vec<_>>();
            let mut cuts = cuts.into_iter().map(|cut| cut.min(stream.len())).collect::<Vec<_>>();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut frames = Frames::new();
            let mut got = Vec::new();
            for cut in cuts.windows(2) {
                frames.push(&stream[cut[0]..cut[1]]);
                while let Some(request) = frames.take::<Request>().unwrap() {
                    got.push(request);
                }
            }
            prop_assert_eq!(got, requests);
            prop_assert!(frames.is_empty());
        }

        #[test]
        fn any_octets_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.take::<Request>() {}
        }
    }
}
