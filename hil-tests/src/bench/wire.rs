//! One end of a connection: lines and counted octets in, octets out.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line that either end of the bench ever sends, with room to spare; more is a peer gone wrong.
const LINE_LIMIT: usize = 16 * 1024;

/// A stream and what was read from it but not yet used. Holds no buffer while it waits for the first octet.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    input: Vec<u8>,
    taken: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), taken: 0 }
    }

    /// The next line without its CRLF; `None` at the end of the stream. Octets that are not UTF-8 become `U+FFFD`.
    pub async fn line(&mut self) -> io::Result<Option<String>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.input[self.taken + searched..].iter().position(|&octet| octet == b'\n') {
                let end = self.taken + searched + at;
                let line = &self.input[self.taken..end];
                let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
                self.take(end + 1 - self.taken);
                return Ok(Some(line));
            }
            searched = self.input.len() - self.taken;
            if searched > LINE_LIMIT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next line, whose absence is an error that names what was expected.
    pub async fn expect_line(&mut self, expected: &str) -> io::Result<String> {
        self.line().await?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed, {expected} expected"))
        })
    }

    /// The next `count` octets.
    pub async fn octets(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.input.len() - self.taken < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let octets = self.input[self.taken..self.taken + count].to_vec();
        self.take(count);
        Ok(octets)
    }

    /// Reads as many octets as `expected` has and says whether they are the same, without keeping them.
    pub async fn matches(&mut self, mut expected: &[u8]) -> io::Result<bool> {
        let mut same = true;
        let at_hand = (self.input.len() - self.taken).min(expected.len());
        same &= self.input[self.taken..self.taken + at_hand] == expected[..at_hand];
        self.take(at_hand);
        expected = &expected[at_hand..];
        let mut chunk = vec![0; expected.len().min(256 * 1024)];
        while !expected.is_empty() {
            let room = chunk.len().min(expected.len());
            let count = self.stream.read(&mut chunk[..room]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            same &= chunk[..count] == expected[..count];
            expected = &expected[count..];
        }
        Ok(same)
    }

    /// Reads up to and with `mark`; gives what stood before it.
    pub async fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let seen = &self.input[self.taken..];
            if let Some(at) = seen[searched..].windows(mark.len()).position(|window| window == mark) {
                let found = seen[..searched + at].to_vec();
                self.take(found.len() + mark.len());
                return Ok(found);
            }
            searched = (seen.len() + 1).saturating_sub(mark.len());
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Writes all of it and flushes.
    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// Reads to the end of the stream, dropping what comes.
    pub async fn drain(&mut self) -> io::Result<()> {
        loop {
            self.take(self.input.len() - self.taken);
            match self.fill().await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // Several servers close TCP without a close_notify; the dialogue itself was complete before that.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends our direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk).await?;
        self.input.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_octets_and_marks_share_one_buffer() {
        let (near, far) = tokio::io::duplex(8);
        let (mut near, mut far) = (Wire::new(near), Wire::new(far));
        let sending = async {
            near.send(b"one\r\ntwo\n12345three\r\n.\r\nsame as said").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let receiving = async {
            assert_eq!(far.line().await.unwrap().unwrap(), "one");
            assert_eq!(far.line().await.unwrap().unwrap(), "two");
            assert_eq!(far.octets(5).await.unwrap(), b"12345");
            assert_eq!(far.until(b"\r\n.\r\n").await.unwrap(), b"three");
            assert!(far.matches(b"same").await.unwrap());
            assert!(!far.matches(b" as SAID").await.unwrap());
            assert!(far.line().await.unwrap().is_none());
            assert!(far.matches(b"more").await.is_err());
        };
        tokio::join!(sending, receiving);
    }
}
