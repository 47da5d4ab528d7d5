//! The sessions that are live now: listed for the operator, and ended when their device is revoked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

use mail::session::Protocol;
use tokio::sync::oneshot;

use crate::relay::Kill;

/// What a live session is filed under.
#[derive(Clone, Debug)]
pub struct Session {
    /// Connection id, as in the logs.
    pub connection: String,
    /// Canonical account.
    pub account: Box<str>,
    /// The device's alias, if it is a recorded one.
    pub device: Option<Box<str>>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The client's address.
    pub client: SocketAddr,
    /// Unix seconds of its login.
    pub since: u64,
}

/// All live sessions.
#[derive(Default)]
pub struct Sessions {
    live: Mutex<HashMap<u64, (Session, oneshot::Sender<Kill>)>>,
    next: AtomicU64,
}

/// Keeps a session listed; dropping it takes it off.
pub struct Listed {
    sessions: Arc<Sessions>,
    key: u64,
}

impl Sessions {
    /// Lists a session; the receiver hears of its end from outside.
    pub fn add(self: &Arc<Self>, session: Session) -> (Listed, oneshot::Receiver<Kill>) {
        let (kill, killed) = oneshot::channel();
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(key, (session, kill));
        (Listed { sessions: Arc::clone(self), key }, killed)
    }

    /// How many are live.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// A copy of the list, oldest first.
    pub fn list(&self) -> Vec<Session> {
        let live = self.lock();
        let mut list: Vec<_> = live.iter().map(|(key, (session, _))| (*key, session.clone())).collect();
        list.sort_unstable_by_key(|(key, _)| *key);
        list.into_iter().map(|(_, session)| session).collect()
    }

    /// Ends every session that `which` names; returns how many.
    pub fn end(&self, why: Kill, which: impl Fn(&Session) -> bool) -> usize {
        let mut live = self.lock();
        let keys: Vec<u64> = live.iter().filter(|(_, (s, _))| which(s)).map(|(key, _)| *key).collect();
        for key in &keys {
            if let Some((_, kill)) = live.remove(key) {
                // A session that ended by itself meanwhile has dropped its receiver.
                let _ = kill.send(why);
            }
        }
        keys.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Session, oneshot::Sender<Kill>)>> {
        // A panic while the map is held cannot leave it half changed: every change is one call.
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_whom_it_names_and_nobody_else() {
        let sessions = Arc::new(Sessions::default());
        let session = |device: &str| Session {
            connection: "c".into(),
            account: "ada@example.test".into(),
            device: Some(device.into()),
            protocol: Protocol::Imap,
            client: "127.0.0.1:1".parse().unwrap(),
            since: 0,
        };
        let (_one, mut first) = sessions.add(session("aaaaaa"));
        let (two, mut second) = sessions.add(session("bbbbbb"));
        assert_eq!(sessions.end(Kill::Revoked, |s| s.device.as_deref() == Some("aaaaaa")), 1);
        assert_eq!(first.try_recv().unwrap(), Kill::Revoked);
        assert!(second.try_recv().is_err());
        assert_eq!(sessions.count(), 1);
        drop(two);
        assert_eq!(sessions.count(), 0);
    }
}
