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
            if let Some(response) = self.frames.next()? {
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
