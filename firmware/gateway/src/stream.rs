//! One side of a session: a TCP socket, in clear or under TLS, that holds memory only while octets are under way.
//!
//! rustls' unbuffered interface leaves every buffer to its caller. Records are read into a scratch buffer of the
//! worker thread and decrypted from there; only the tail of an incomplete record, or what a slow peer has not yet
//! taken, is kept with the connection, and given back as soon as it is gone. A parked session so costs its keys
//! and its task, nothing else (design §12).
//!
//! `poll_` calls never wait and register the task's waker; `read`, `send` and `flush` wait. Reads go through tokio's
//! `poll_read`, because it remembers that a short read has emptied the socket and saves the read that would say so.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Octets of ciphertext or plaintext moved at once after login; four TLS records.
const CHUNK: usize = 64 * 1024;
/// The same before login, where one read's worth may have to be kept: what an unknown peer can make us hold is known.
const CHUNK_BEFORE_LOGIN: usize = 4 * 1024;
/// The longest TLS record with its header (RFC 5246 §6.2.3 allows 2,048 octets of expansion).
const RECORD: usize = 5 + 16 * 1024 + 2048;
/// What TLS adds to one record at most: header, explicit nonce or content type, tag.
const RECORD_OVERHEAD: usize = 64;
/// Before the peer is known, its records may not make us keep more than this.
const UNFINISHED: usize = RECORD;

thread_local! {
    // One pair of buffers a worker thread, used only between two awaits.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { input: vec![0; CHUNK + RECORD], output: Vec::new() });
}

struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Read {
    /// At least one octet was handed over.
    Data,
    /// The peer will send no more (TCP FIN or TLS `close_notify`).
    End,
}

/// A socket, with TLS or without.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Tls>>,
    /// What the peer has not taken yet: ciphertext under TLS.
    unsent: Unsent,
    /// The peer will send no more.
    ended: bool,
    /// We will send no more, once `unsent` is gone.
    finishing: bool,
    /// Octets read at once.
    chunk: usize,
}

/// Octets waiting for a slow peer; given back when empty.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    start: usize,
}

impl Unsent {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn advance(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

struct Tls {
    connection: Connection,
    /// The beginning of a record whose end has not arrived.
    partial: Vec<u8>,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What the TLS engine needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Engine {
    /// More octets from the peer, handshake not done.
    Handshaking,
    /// Handshake done, nothing to do.
    Ready,
    /// The peer said `close_notify`.
    Closed,
}

impl Stream {
    /// A socket in clear. Sets `TCP_NODELAY`: a dialogue's answers are written whole, so nothing is won by waiting.
    pub fn clear(socket: TcpStream) -> Self {
        // Fails only on a socket that is already gone, which the next read says better.
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            tls: None,
            unsent: Unsent::default(),
            ended: false,
            finishing: false,
            chunk: CHUNK_BEFORE_LOGIN,
        }
    }

    /// From here on octets go through to somebody who takes them: large reads.
    pub fn relaying(&mut self) {
        self.chunk = CHUNK;
    }

    /// Whether octets are protected on the wire.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Our own address on this connection.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether the handshake resumed an earlier session; `None` in clear or before its end.
    pub fn resumed(&self) -> Option<bool> {
        let kind = match &self.tls.as_ref()?.connection {
            Connection::Server(c) => c.handshake_kind(),
            Connection::Client(c) => c.handshake_kind(),
        }?;
        Some(kind == rustls::HandshakeKind::Resumed)
    }

    /// Negotiated version and suite, for logs: `TLSv1_3 TLS13_AES_128_GCM_SHA256`.
    pub fn tls_name(&self) -> Option<String> {
        let (version, suite) = match &self.tls.as_ref()?.connection {
            Connection::Server(c) => (c.protocol_version()?, c.negotiated_cipher_suite()?),
            Connection::Client(c) => (c.protocol_version()?, c.negotiated_cipher_suite()?),
        };
        Some(format!("{version:?} {:?}", suite.suite()))
    }

    /// Becomes the server of a TLS connection. `hello` holds what has already been read of the peer's octets.
    ///
    /// Returns the plaintext that came in one segment with the end of the handshake.
    ///
    /// # Errors
    /// The peer's handshake failed (an alert was sent), or the socket did.
    pub async fn accept_tls(&mut self, config: Arc<ServerConfig>, hello: Vec<u8>) -> io::Result<Vec<u8>> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        self.tls = Some(Box::new(Tls { connection: Connection::Server(connection), partial: hello }));
        self.handshake().await
    }

    /// Becomes the client of a TLS connection. Returns early plaintext as [`Self::accept_tls`] does.
    ///
    /// # Errors
    /// As [`Self::accept_tls`]; also a certificate that is not `name`'s.
    pub async fn connect_tls(
        &mut self,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Vec<u8>> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(Tls { connection: Connection::Client(connection), partial: Vec::new() }));
        self.handshake().await
    }

    async fn handshake(&mut self) -> io::Result<Vec<u8>> {
        let mut early = Vec::new();
        // The hello may be here in full already.
        let mut engine = self.engine(0, &mut |bytes| early.extend_from_slice(bytes));
        loop {
            if matches!(engine, Ok(Engine::Ready)) {
                return Ok(early);
            }
            // Also when the engine failed: its alert tells the peer why.
            self.flush().await?;
            match engine? {
                Engine::Ready => return Ok(early),
                Engine::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                Engine::Handshaking => {}
            }
            engine = match poll_fn(|cx| self.poll_fill(cx)).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.engine(n, &mut |bytes| early.extend_from_slice(bytes)),
            };
        }
    }

    /// Reads from the socket behind what is kept of an incomplete record, into the scratch buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let kept = self.tls.as_ref().map_or(0, |tls| tls.partial.len());
        SCRATCH.with_borrow_mut(|scratch| {
            let Some(space) = scratch.input.get_mut(kept..kept + self.chunk) else {
                return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
            };
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
            Poll::Ready(Ok(space.filled().len()))
        })
    }

    /// Runs the TLS engine over what is kept plus the `fresh` octets just read, hands plaintext to `sink`, sends what
    /// the engine wants sent, and keeps an incomplete tail.
    fn engine(&mut self, fresh: usize, sink: &mut (dyn FnMut(&[u8]) + Send)) -> io::Result<Engine> {
        let Some(tls) = self.tls.as_deref_mut() else { return Ok(Engine::Ready) };
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = tls.partial.len();
            scratch.output.clear();
            let total = kept + fresh;
            if scratch.input.len() < total {
                scratch.input.resize(total, 0);
            }
            let Some(input) = scratch.input.get_mut(..total) else {
                return Err(io::ErrorKind::OutOfMemory.into());
            };
            if let Some(head) = input.get_mut(..kept) {
                head.copy_from_slice(&tls.partial);
            }
            let greets = tls.connection.is_handshaking() && matches!(tls.connection, Connection::Server(_));
            let (used, result) = tls.connection.process(input, &mut scratch.output, sink);
            let rest = input.get(used..).unwrap_or_default();
            if rest.len() > UNFINISHED && matches!(result, Ok(Engine::Handshaking)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS handshake message too long"));
            }
            if rest.is_empty() {
                tls.partial = Vec::new();
            } else {
                tls.partial.clear();
                tls.partial.extend_from_slice(rest);
            }
            // What the engine wants sent (its flight, an alert, a key update) goes out even when it failed; only tickets
            // wait for the greeting behind them, and share its packet.
            if greets && matches!(result, Ok(Engine::Ready)) {
                self.unsent.add(&scratch.output);
            } else {
                send_or_keep(&self.socket, &mut self.unsent, &scratch.output)?;
            }
            result
        })
    }

    /// Hands the plaintext of one read to `sink`.
    ///
    /// # Errors
    /// The socket's, or a broken TLS record.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Poll<io::Result<Read>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(Read::End));
            }
            let fresh = ready!(self.poll_fill(cx))?;
            if fresh == 0 {
                // A FIN without close_notify is a truncation; the mail protocols say their own goodbye, so it is an
                // end like any other for the relay.
                self.ended = true;
            } else if self.tls.is_none() {
                SCRATCH.with_borrow(|scratch| sink(scratch.input.get(..fresh).unwrap_or_default()));
                return Poll::Ready(Ok(Read::Data));
            } else {
                let mut got = false;
                let engine = self.engine(fresh, &mut |bytes| {
                    got = true;
                    sink(bytes);
                })?;
                self.ended = engine == Engine::Closed;
                if got {
                    return Poll::Ready(Ok(Read::Data));
                }
            }
        }
    }

    /// Waits until plaintext came, and hands it to `sink`; `Read::End` when there is no more. Sends what is unsent
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Self::poll_read`].
    pub async fn read(&mut self, sink: &mut (dyn FnMut(&[u8]) + Send)) -> io::Result<Read> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_read(cx, sink)
        })
        .await
    }

    /// Sends `plain` as far as the peer takes it now; the rest is kept, and [`Self::has_unsent`] says so. Call it
    /// again only when nothing is unsent: that is the back-pressure.
    ///
    /// # Errors
    /// The socket's, or an exhausted TLS key.
    pub fn try_send(&mut self, plain: &[u8]) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        let Some(tls) = self.tls.as_deref_mut() else {
            return send_or_keep(&self.socket, &mut self.unsent, plain);
        };
        // Borrowed apart from `input`: a sink of another stream's `engine` may call this while its input is in use.
        OUTPUT.with_borrow_mut(|output| {
            output.clear();
            tls.connection.encrypt(plain, output)?;
            send_or_keep(&self.socket, &mut self.unsent, output)
        })
    }

    /// Whether the peer has yet to take something.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// How many octets the peer has yet to take.
    pub fn unsent(&self) -> usize {
        self.unsent.rest().len()
    }

    /// Sends more of what is unsent; ready when nothing is.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, self.unsent.rest()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.unsent.advance(n),
            }
        }
        if self.finishing {
            self.finishing = false;
            // A peer that is gone needs no goodbye.
            let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends `plain` and waits until the peer has taken all of it.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    pub async fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        for chunk in plain.chunks(CHUNK) {
            self.try_send(chunk)?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits until nothing is unsent.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says that no more will be sent: `close_notify` and TCP FIN behind what is unsent; the other direction stays
    /// open (half-close). A flush carries it out.
    pub fn close_write(&mut self) {
        if let Some(tls) = self.tls.as_deref_mut() {
            OUTPUT.with_borrow_mut(|output| {
                output.clear();
                if tls.connection.close_notify(output).is_ok() {
                    let _ = send_or_keep(&self.socket, &mut self.unsent, output);
                }
            });
        }
        self.finishing = true;
    }

    /// Reads raw octets, before any TLS, behind what `into` already holds; 0 at the end.
    ///
    /// # Errors
    /// The socket's.
    pub async fn read_raw(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let n = poll_fn(|cx| self.poll_fill(cx)).await?;
        SCRATCH.with_borrow(|scratch| into.extend_from_slice(scratch.input.get(..n).unwrap_or_default()));
        Ok(n)
    }
}

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes what the socket takes now and keeps the rest in order.
fn send_or_keep(socket: &TcpStream, unsent: &mut Unsent, mut bytes: &[u8]) -> io::Result<()> {
    if unsent.is_empty() && !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if !bytes.is_empty() {
        unsent.add(bytes);
    }
    Ok(())
}

impl Connection {
    fn is_handshaking(&self) -> bool {
        match self {
            Self::Server(c) => c.is_handshaking(),
            Self::Client(c) => c.is_handshaking(),
        }
    }

    /// Processes records of `input`; returns how many octets are done with, and what is needed next.
    fn process(
        &mut self,
        input: &mut [u8],
        output: &mut Vec<u8>,
        sink: &mut (dyn FnMut(&[u8]) + Send),
    ) -> (usize, io::Result<Engine>) {
        let (used, result) = match self {
            Self::Server(c) => process(c, input, output, sink, |c, i| c.process_tls_records(i)),
            Self::Client(c) => process(c, input, output, sink, |c, i| c.process_tls_records(i)),
        };
        match result {
            // A TLS 1.3 server may write before the client's Finished; we do not, the handshake is not proven yet.
            Ok(Engine::Ready) if self.is_handshaking() => (used, Ok(Engine::Handshaking)),
            result => (used, result),
        }
    }

    fn encrypt(&mut self, plain: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Server(c) => encrypt(c, plain, output, |c| c.process_tls_records(&mut [])),
            Self::Client(c) => encrypt(c, plain, output, |c| c.process_tls_records(&mut [])),
        }
    }

    fn close_notify(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Server(c) => close_notify(output, c.process_tls_records(&mut [])),
            Self::Client(c) => close_notify(output, c.process_tls_records(&mut [])),
        }
    }
}

fn process<C, D>(
    connection: &mut C,
    input: &mut [u8],
    output: &mut Vec<u8>,
    sink: &mut (dyn FnMut(&[u8]) + Send),
    mut step: impl for<'c, 'i> FnMut(&'c mut C, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, D>,
) -> (usize, io::Result<Engine>) {
    let mut used = 0;
    loop {
        let Some(rest) = input.get_mut(used..) else { return (used, Ok(Engine::Ready)) };
        let exhausted = rest.is_empty();
        let UnbufferedStatus { mut discard, state } = step(connection, rest);
        let next = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut failed = None;
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            sink(record.payload);
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                failed.map(|error| Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(output, |out| data.encode(out)).err().map(Err)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::BlockedHandshake) => Some(Ok(Engine::Handshaking)),
            Ok(ConnectionState::WriteTraffic(_)) => (exhausted || discard == 0).then_some(Ok(Engine::Ready)),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Ok(Engine::Closed)),
            Ok(_) => Some(Err(io::Error::other("unexpected TLS state"))),
            Err(error) => {
                used += discard;
                // The alert is waiting to be encoded; it is due to the peer.
                if let Some(rest) = input.get_mut(used..)
                    && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                        step(connection, rest)
                {
                    let _ = encode(output, |out| data.encode(out));
                }
                return (used, Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        };
        used += discard;
        if let Some(result) = next {
            return (used, result);
        }
    }
}

fn encode(
    output: &mut Vec<u8>,
    mut into: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let start = output.len();
    let mut room = 4096;
    loop {
        output.resize(start + room, 0);
        match into(output.get_mut(start..).unwrap_or_default()) {
            Ok(n) => {
                output.truncate(start + n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needs)) if needs.required_size > room => {
                room = needs.required_size;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn encrypt<C, D>(
    connection: &mut C,
    plain: &[u8],
    output: &mut Vec<u8>,
    mut step: impl for<'c> FnMut(&'c mut C) -> UnbufferedStatus<'c, 'static, D>,
) -> io::Result<()> {
    loop {
        match step(connection).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let start = output.len();
                let records = plain.len() / (16 * 1024) + 1;
                output.resize(start + plain.len() + (records + 1) * RECORD_OVERHEAD, 0);
                let room = output.get_mut(start..).unwrap_or_default();
                let written = match traffic.encrypt(plain, room) {
                    Ok(n) => n,
                    Err(EncryptError::InsufficientSize(needs)) => {
                        output.resize(start + needs.required_size, 0);
                        let room = output.get_mut(start..).unwrap_or_default();
                        traffic.encrypt(plain, room).map_err(io::Error::other)?
                    }
                    Err(error) => return Err(io::Error::other(error)),
                };
                output.truncate(start + written);
                return Ok(());
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(output, |out| data.encode(out))?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

fn close_notify<D>(output: &mut Vec<u8>, status: UnbufferedStatus<'_, '_, D>) -> io::Result<()> {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        let start = output.len();
        output.resize(start + RECORD_OVERHEAD * 2, 0);
        let n = traffic
            .queue_close_notify(output.get_mut(start..).unwrap_or_default())
            .map_err(io::Error::other)?;
        output.truncate(start + n);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server configuration as the listeners have it, and the PEM of its only root.
    fn server(folder: &Path, tls13_only: bool) -> (Arc<ServerConfig>, Arc<rustls::ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(["box.test".to_owned()]).unwrap();
        let (chain, key) = (folder.join("c.pem"), folder.join("k.pem"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (certificates, _) = tls::Certificates::load([(&*chain, &*key)]).unwrap();
        let aes = board::crypto::Aes::Hardware;
        let server = tls::server_config(aes, tls13_only, certificates, tls::ticketer().unwrap()).unwrap();
        (server, tls::client_config(aes, Some(&chain)).unwrap())
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("box.test").unwrap()
    }

    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, Stream::clear(listener.accept().await.unwrap().0))
    }

    async fn read_all(stream: &mut Stream, mut early: Vec<u8>) -> Vec<u8> {
        while stream.read(&mut |bytes| early.extend_from_slice(bytes)).await.unwrap() == Read::Data {}
        early
    }

    #[tokio::test]
    async fn large_bodies_survive_both_versions_and_both_ends() {
        let folder = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        for tls13_only in [true, false] {
            let (server, client) = server(folder.path(), tls13_only);
            // An independent client against our server's side.
            let (near, mut ours) = pair().await;
            let sent = body.clone();
            let config = Arc::clone(&client);
            let peer = tokio::spawn(async move {
                let connector = tokio_rustls::TlsConnector::from(config);
                let mut tls = connector.connect(name(), near).await.unwrap();
                tls.write_all(&sent).await.unwrap();
                tls.shutdown().await.unwrap();
                let mut back = Vec::new();
                tls.read_to_end(&mut back).await.unwrap();
                back
            });
            let early = ours.accept_tls(Arc::clone(&server), Vec::new()).await.unwrap();
            let got = read_all(&mut ours, early).await;
            assert_eq!(got, body);
            // Half-close: the peer has said close_notify and still gets all of it back.
            ours.send(&got).await.unwrap();
            ours.close_write();
            ours.flush().await.unwrap();
            assert_eq!(peer.await.unwrap(), body);
            assert!(
                ours.tls.as_ref().unwrap().partial.is_empty() && !ours.has_unsent(),
                "nothing is kept when idle"
            );

            // Our client's side against our server's.
            let (near, mut theirs) = pair().await;
            let mut near = Stream::clear(near);
            let sent = body.clone();
            let peer = tokio::spawn(async move {
                near.connect_tls(client, name()).await.unwrap();
                near.send(&sent).await.unwrap();
                near.close_write();
                near.flush().await.unwrap();
                near
            });
            let early = theirs.accept_tls(server, Vec::new()).await.unwrap();
            assert_eq!(read_all(&mut theirs, early).await, body);
            drop(peer.await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_second_connection_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let (server, client) = server(folder.path(), true);
        for resumed in [false, true] {
            let (near, mut ours) = pair().await;
            let config = Arc::clone(&client);
            let peer = tokio::spawn(async move {
                let mut tls = tokio_rustls::TlsConnector::from(config).connect(name(), near).await.unwrap();
                let mut byte = [0];
                tls.read_exact(&mut byte).await.unwrap();
            });
            ours.accept_tls(Arc::clone(&server), Vec::new()).await.unwrap();
            ours.send(b"x").await.unwrap();
            peer.await.unwrap();
            assert_eq!(ours.resumed(), Some(resumed));
        }
    }

    #[tokio::test]
    async fn a_command_in_one_segment_with_finished_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (server, client) = server(folder.path(), true);
        let (mut near, mut ours) = pair().await;
        let peer = tokio::spawn(async move {
            // Driven by hand so that Finished and the first command leave in one write.
            let mut tls = rustls::ClientConnection::new(client, name()).unwrap();
            let mut out = Vec::new();
            while tls.is_handshaking() {
                out.clear();
                while tls.wants_write() {
                    tls.write_tls(&mut out).unwrap();
                }
                near.write_all(&out).await.unwrap();
                let mut input = vec![0; 8192];
                let n = near.read(&mut input).await.unwrap();
                tls.read_tls(&mut &input[..n]).unwrap();
                tls.process_new_packets().unwrap();
            }
            std::io::Write::write_all(&mut tls.writer(), b"EHLO a\r\n").unwrap();
            out.clear();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            near.write_all(&out).await.unwrap();
            near
        });
        let mut got = ours.accept_tls(server, Vec::new()).await.unwrap();
        let _near = peer.await.unwrap();
        if got.is_empty() {
            ours.read(&mut |bytes| got.extend_from_slice(bytes)).await.unwrap();
        }
        assert_eq!(got, b"EHLO a\r\n");
    }

    #[tokio::test]
    async fn clear_text_sent_to_tls_gets_an_alert_and_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (server, _) = server(folder.path(), false);
        let (mut near, mut ours) = pair().await;
        near.write_all(b"EHLO not-tls\r\n").await.unwrap();
        assert!(ours.accept_tls(server, Vec::new()).await.is_err());
        drop(ours);
        let mut answer = Vec::new();
        let _ = near.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&21), "a TLS alert record");
    }

    #[tokio::test]
    async fn a_certificate_of_another_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (server, client) = server(folder.path(), true);
        let (near, mut ours) = pair().await;
        let mut near = Stream::clear(near);
        let peer = tokio::spawn(async move {
            near.connect_tls(client, ServerName::try_from("evil.test").unwrap()).await
        });
        let _ = ours.accept_tls(server, Vec::new()).await;
        assert!(peer.await.unwrap().is_err());
    }
}
