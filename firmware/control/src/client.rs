//! A client with plain blocking calls, for the command line and the consoles.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::frame::{FrameError, Frames, encode};
use crate::{Request, Response};

/// One connection to the gateway.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: Frames,
}

/// Why there is no answer. A gateway's own "no" is a [`Response::Error`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket, or we may not go there.
    #[error("no gateway answers there: {0}")]
    NoGateway(#[source] io::Error),
    /// The gateway hung up before its answer was whole.
    #[error("the gateway hung up before it had answered")]
    HungUp,
    /// The connection broke.
    #[error("the connection to the gateway broke: {0}")]
    Broken(#[from] io::Error),
    /// The gateway said something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Client {
    /// Connects. `patience` is the longest silence before an answer is given up; `None`: wait for ever.
    ///
    /// # Errors
    /// [`ClientError::NoGateway`].
    pub fn connect(socket: &Path, patience: Option<Duration>) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(ClientError::NoGateway)?;
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        Ok(Self { stream, frames: Frames::new() })
    }

    /// Sends a request and reads its whole answer, pages joined. Not for what goes on until one hangs up
    /// ([`Request::Events`] with `follow`).
    ///
    /// # Errors
    /// A broken or silent connection, or what is not of the contract.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.send(request)?;
        let mut answer = self.receive()?;
        while !answer.is_last() {
            answer.join(self.receive()?);
        }
        Ok(answer)
    }

    /// Sends a request. Its answers are read with [`Client::receive`] until [`Response::is_last`].
    ///
    /// # Errors
    /// A broken connection, or a request over the frame limit.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream.write_all(&encode(request)?).map_err(hung_up)
    }

    /// The next frame of an answer.
    ///
    /// # Errors
    /// A broken or silent connection, or what is not of the contract.
    pub fn receive(&mut self) -> Result<Response, ClientError> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(response) = self.frames.take()? {
                return Ok(response);
            }
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::HungUp),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(hung_up(error)),
            };
            self.frames.push(buffer.get(..read).unwrap_or_default());
        }
    }
}

fn hung_up(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::HungUp,
        _ => ClientError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::{AttemptRow, ControlError, ErrorCode, Page};

    /// A gateway that takes one request and answers with these octets, two at a time, then hangs up.
    fn gateway(answer: Vec<u8>) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frames = Frames::new();
            let mut octet = [0];
            while frames.take::<Request>().unwrap().is_none() {
                stream.read_exact(&mut octet).unwrap();
                frames.push(&octet);
            }
            for part in answer.chunks(2) {
                stream.write_all(part).unwrap();
            }
        });
        (folder, socket)
    }

    fn ask(answer: Vec<u8>) -> Result<Response, ClientError> {
        let (_folder, socket) = gateway(answer);
        Client::connect(&socket, Some(Duration::from_secs(10)))?.ask(&Request::Attempts { account: None })
    }

    fn rows(count: usize) -> Vec<AttemptRow> {
        let row = |number: usize| AttemptRow {
            account: None,
            network: format!("192.0.2.{number}"),
            country: None,
            failures: 1,
            first: 1,
            last: 2,
            blocked_until: None,
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn pages_are_joined() {
        let pages =
            Page::all(rows(600)).flat_map(|page| encode(&Response::Attempts(page)).unwrap()).collect();
        assert_eq!(ask(pages).unwrap(), Response::Attempts(Page { rows: rows(600), more: false }));
    }

    #[test]
    fn an_error_ends_a_list() {
        let error = Response::Error(ControlError::new(ErrorCode::Storage, "the disk is gone", "replace it"));
        let mut frames = encode(&Response::Attempts(Page { rows: rows(1), more: true })).unwrap();
        frames.extend(encode(&error).unwrap());
        assert_eq!(ask(frames).unwrap(), error);
    }

    #[test]
    fn a_gateway_that_hangs_up_is_told() {
        let mut frames = encode(&Response::Attempts(Page { rows: rows(1), more: true })).unwrap();
        frames.pop();
        assert!(matches!(ask(frames), Err(ClientError::HungUp)));
        let nowhere = Client::connect(Path::new("/nowhere/control"), None);
        assert!(matches!(nowhere, Err(ClientError::NoGateway(_))));
    }
}
