//! Whoever started us, in the words of systemd: init on the box, systemd on a server, nobody in a shell.
//!
//! - Listening sockets may come from outside (`sd_listen_fds(3)`): ports below 1024 need no privilege then.
//! - Readiness and liveness go back (`sd_notify(3)`). A life sign is sent only after runtime and device database have
//!   answered, so that a gateway which hangs is restarted even if one of its threads still runs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::warn;

use crate::gateway::Gateway;

/// How long the service manager may take to be told something.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listening sockets that were passed and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Passed(Vec<(SocketAddr, TcpListener)>);

impl Passed {
    /// Those of `LISTEN_FDS`, if `LISTEN_PID` says that they are ours. What is no listening TCP socket is left alone.
    pub fn from_environment() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(passed.len());
        for at in 0..passed.len() {
            match passed.take_tcp_listener(at) {
                Ok(Some(socket)) => match socket.local_addr() {
                    Ok(address) => sockets.push((address, socket)),
                    Err(error) => warn!(at, %error, "a passed socket has no address and is not used"),
                },
                Ok(None) => {}
                Err(error) => warn!(at, %error, "a passed descriptor is no TCP socket and is not used"),
            }
        }
        Self(sockets)
    }

    /// The socket that listens on `address`, once.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(passed, _)| *passed == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Says which sockets no listener of the settings wanted; they close with this value.
    pub fn report_unused(&self) {
        for (address, _) in &self.0 {
            warn!(%address, "a socket was passed that [listen] does not name");
        }
    }
}

/// Everything is open and accepting.
pub async fn ready() {
    tell(NotifyState::Ready).await;
}

/// The drain begins.
pub async fn stopping() {
    tell(NotifyState::Stopping).await;
}

/// Nobody may be listening: on a plain server without a service manager that is the ordinary case. A manager that does
/// not read makes the send wait; it must not make the gateway wait.
async fn tell(state: NotifyState<'static>) {
    let sent = tokio::task::spawn_blocking(move || sd_notify::notify(&[state]));
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(Err(error))) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%error, "the service manager cannot be told how we are");
        }
        Ok(_) => {}
        Err(_) => warn!("the service manager does not read what we tell it"),
    }
}

/// Sends life signs until `stop`, twice in the time after which the manager would give us up (`WATCHDOG_USEC`).
pub async fn life_signs(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval(limit / 2);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if answers(&gateway, limit / 2).await {
            tell(NotifyState::Watchdog).await;
        } else {
            warn!("no life sign: the device database has not answered in time");
        }
    }
}

/// Whether a new task is run and a look-up in the database comes back.
async fn answers(gateway: &Arc<Gateway>, limit: Duration) -> bool {
    let store = Arc::clone(&gateway.store);
    let asked = tokio::spawn(async move {
        // That the look-up may find trouble is the database's business (`check_store`); here it only has to come back.
        tokio::task::spawn_blocking(move || drop(store.find("", &[]))).await
    });
    matches!(tokio::time::timeout(limit, asked).await, Ok(Ok(Ok(()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_socket_is_taken_once_and_by_its_address() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut passed = Passed(vec![(address, socket)]);
        assert!(passed.take("127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(passed.take(address).unwrap().local_addr().unwrap(), address);
        assert!(passed.take(address).is_none());
    }
}
