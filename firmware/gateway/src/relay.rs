//! After login: octets both ways between a client and its backend, with back-pressure and half-close, until one
//! side is done, nothing has moved for too long, or the session is ended from outside.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::sessions::Octets;
use crate::stream::{Read, Stream};

/// How often one side may be read before the other gets its turn.
const TURNS: usize = 4;

/// Why a live session is ended from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kill {
    /// Its device was revoked, its mailbox locked, or an operator said so.
    Revoked,
    /// The gateway is going down.
    Drain,
}

/// How a relay came to its end.
#[derive(Debug)]
pub enum Ended {
    /// Both sides said so.
    Done,
    /// Nothing moved for the allowed time.
    Idle,
    /// From outside. `at_line`: whether the client has last seen a complete line, so that a word of farewell may follow.
    Killed {
        /// Why.
        why: Kill,
        /// See above.
        at_line: bool,
    },
    /// The client's connection failed.
    Client(io::Error),
    /// The backend's connection failed.
    Backend(io::Error),
}

struct Direction<'o> {
    open: bool,
    last: u8,
    moved: &'o Octets,
    count: fn(&Octets, usize),
}

/// Which side failed.
enum Failed {
    From(io::Error),
    To(io::Error),
}

/// Moves octets until the session is over. Holds no buffer: what a peer has not taken is in its [`Stream`].
pub async fn relay(
    client: &mut Stream,
    backend: &mut Stream,
    kill: &mut oneshot::Receiver<Kill>,
    idle: Duration,
    moved: &Octets,
) -> Ended {
    let mut up = Direction { open: true, last: b'\n', moved, count: Octets::add_up };
    let mut down = Direction { open: true, last: b'\n', moved, count: Octets::add_down };
    let mut timer = Box::pin(tokio::time::sleep(idle));
    let mut seen = 0;
    loop {
        let why = tokio::select! {
            biased;
            why = &mut *kill => Some(why.unwrap_or(Kill::Drain)),
            ended = poll_fn(|cx| poll(client, backend, &mut up, &mut down, cx)) => break ended,
            () = &mut timer => None,
        };
        match why {
            Some(why) => break Ended::Killed { why, at_line: down.last == b'\n' && !client.has_unsent() },
            // Checked once a period instead of rearmed at every octet.
            None if moved.up() + moved.down() == seen => break Ended::Idle,
            None => {
                seen = moved.up() + moved.down();
                timer.as_mut().reset(tokio::time::Instant::now() + idle);
            }
        }
    }
}

fn poll(
    client: &mut Stream,
    backend: &mut Stream,
    up: &mut Direction<'_>,
    down: &mut Direction<'_>,
    cx: &mut Context<'_>,
) -> Poll<Ended> {
    for _ in 0..TURNS {
        let sent = match advance(client, backend, up, cx) {
            Ok(moved) => moved,
            Err(Failed::From(error)) => return Poll::Ready(Ended::Client(error)),
            Err(Failed::To(error)) => return Poll::Ready(Ended::Backend(error)),
        };
        let received = match advance(backend, client, down, cx) {
            Ok(moved) => moved,
            Err(Failed::From(error)) => return Poll::Ready(Ended::Backend(error)),
            Err(Failed::To(error)) => return Poll::Ready(Ended::Client(error)),
        };
        if !up.open && !down.open && !client.has_unsent() && !backend.has_unsent() {
            return Poll::Ready(Ended::Done);
        }
        if !sent && !received {
            return Poll::Pending;
        }
    }
    // A busy pair yields so that the worker's other sessions keep their pace.
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// One read's worth from `from` to `to`, if `to` has taken all it was given. `true`: there may be more at once.
fn advance(
    from: &mut Stream,
    to: &mut Stream,
    direction: &mut Direction<'_>,
    cx: &mut Context<'_>,
) -> Result<bool, Failed> {
    match to.poll_flush(cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(error)) => return Err(Failed::To(error)),
        Poll::Pending => return Ok(false),
    }
    if !direction.open {
        return Ok(false);
    }
    let mut failed = None;
    let read = from.poll_read(cx, &mut |bytes| {
        (direction.count)(direction.moved, bytes.len());
        direction.last = bytes.last().copied().unwrap_or(direction.last);
        if let Err(error) = to.try_send(bytes) {
            failed = Some(error);
        }
    });
    if let Some(error) = failed {
        return Err(Failed::To(error));
    }
    match read {
        Poll::Ready(Ok(Read::Data)) => Ok(true),
        Poll::Ready(Ok(Read::End)) => {
            direction.open = false;
            to.close_write();
            Ok(true)
        }
        Poll::Ready(Err(error)) => Err(Failed::From(error)),
        Poll::Pending => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn both_directions_may_be_full_at_once_without_a_deadlock() {
        let (client, ours) = pair().await;
        let (theirs, backend) = pair().await;
        let (_kill, mut killed) = oneshot::channel();
        let relay = tokio::spawn(async move {
            let (mut ours, mut theirs) = (Stream::clear(ours), Stream::clear(theirs));
            let moved = Octets::default();
            let ended = relay(&mut ours, &mut theirs, &mut killed, Duration::from_secs(20), &moved).await;
            (ended, moved)
        });
        // Both ends write 8 MB before either reads: each needs the other direction to move meanwhile.
        let body = vec![7u8; 8 << 20];
        let both = |stream: TcpStream, body: Vec<u8>| async move {
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&body).await.unwrap();
                write.shutdown().await.unwrap();
            });
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            writer.await.unwrap();
            got.len()
        };
        let (a, b) = tokio::join!(both(client, body.clone()), both(backend, body));
        assert_eq!((a, b), (8 << 20, 8 << 20));
        let (ended, moved) = relay.await.unwrap();
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        assert_eq!((moved.up(), moved.down()), (8 << 20, 8 << 20));
    }

    #[tokio::test]
    async fn half_close_lets_the_other_side_finish() {
        let (mut client, ours) = pair().await;
        let (theirs, mut backend) = pair().await;
        let (_kill, mut killed) = oneshot::channel();
        tokio::spawn(async move {
            let (mut ours, mut theirs) = (Stream::clear(ours), Stream::clear(theirs));
            relay(&mut ours, &mut theirs, &mut killed, Duration::from_secs(20), &Octets::default()).await
        });
        client.write_all(b"QUIT\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        backend.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"QUIT\r\n");
        backend.write_all(b"+OK bye\r\n").await.unwrap();
        drop(backend);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"+OK bye\r\n");
    }

    #[tokio::test]
    async fn ended_from_outside_at_once() {
        let (_client, ours) = pair().await;
        let (theirs, _backend) = pair().await;
        let (kill, mut killed) = oneshot::channel();
        kill.send(Kill::Revoked).unwrap();
        let (mut ours, mut theirs) = (Stream::clear(ours), Stream::clear(theirs));
        let ended =
            relay(&mut ours, &mut theirs, &mut killed, Duration::from_secs(20), &Octets::default()).await;
        assert!(matches!(ended, Ended::Killed { why: Kill::Revoked, at_line: true }), "{ended:?}");
    }
}
