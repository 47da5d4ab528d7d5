//! The sessions that are live now: listed for the operator, and ended when their device is revoked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    /// The backend that serves it.
    pub backend: Arc<str>,
    /// Unix seconds of its login.
    pub since: u64,
    /// Octets moved so far.
    pub moved: Arc<Octets>,
}

/// Octets that a live session has moved; counted by its relay, read by the operator.
#[derive(Debug, Default)]
pub struct Octets {
    up: AtomicU64,
    down: AtomicU64,
}

impl Octets {
    /// From the client.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// To the client.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Counts octets from the client.
    pub fn add_up(&self, octets: usize) {
        self.up.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// Counts octets to the client.
    pub fn add_down(&self, octets: usize) {
        self.down.fetch_add(octets as u64, Ordering::Relaxed);
    }
}

/// All live sessions.
#[derive(Default)]
pub struct Sessions {
    live: Mutex<Live>,
    next: AtomicU64,
}

#[derive(Default)]
struct Live {
    sessions: HashMap<u64, (Session, oneshot::Sender<Kill>)>,
    accounts: HashMap<Box<str>, usize>,
}

impl Live {
    fn remove(&mut self, key: u64) -> Option<oneshot::Sender<Kill>> {
        let (session, kill) = self.sessions.remove(&key)?;
        if let Some(count) = self.accounts.get_mut(&session.account) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(&session.account);
            }
        }
        Some(kill)
    }
}

/// Keeps a session listed; dropping it takes it off.
pub struct Listed {
    sessions: Arc<Sessions>,
    key: u64,
}

impl Sessions {
    /// Lists a session; the receiver hears of its end from outside. `None`: its account has `limit` of them.
    pub fn add(
        self: &Arc<Self>,
        session: Session,
        limit: usize,
    ) -> Option<(Listed, oneshot::Receiver<Kill>)> {
        let (kill, killed) = oneshot::channel();
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let mut live = self.lock();
        if let Some(count) = live.accounts.get(&session.account)
            && *count >= limit
        {
            return None;
        }
        *live.accounts.entry(session.account.clone()).or_insert(0) += 1;
        live.sessions.insert(key, (session, kill));
        Some((Listed { sessions: Arc::clone(self), key }, killed))
    }

    /// How many are live.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// A copy of the list, oldest first.
    pub fn list(&self) -> Vec<Session> {
        let live = self.lock();
        let mut list: Vec<_> =
            live.sessions.iter().map(|(key, (session, _))| (*key, session.clone())).collect();
        list.sort_unstable_by_key(|(key, _)| *key);
        list.into_iter().map(|(_, session)| session).collect()
    }

    /// Ends every session that `which` names; returns how many.
    pub fn end(&self, why: Kill, which: impl Fn(&Session) -> bool) -> usize {
        let mut live = self.lock();
        let keys: Vec<u64> =
            live.sessions.iter().filter(|(_, (s, _))| which(s)).map(|(key, _)| *key).collect();
        for key in &keys {
            if let Some(kill) = live.remove(*key) {
                // A session that ended by itself meanwhile has dropped its receiver.
                let _ = kill.send(why);
            }
        }
        keys.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        // A panic while the map is held cannot leave it half changed: every change is one call.
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.lock().remove(self.key);
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
            backend: "main".into(),
            since: 0,
            moved: Arc::default(),
        };
        let (_one, mut first) = sessions.add(session("aaaaaa"), 2).unwrap();
        let (two, mut second) = sessions.add(session("bbbbbb"), 2).unwrap();
        assert!(sessions.add(session("cccccc"), 2).is_none(), "the account has its fill");
        assert_eq!(sessions.end(Kill::Revoked, |s| s.device.as_deref() == Some("aaaaaa")), 1);
        assert_eq!(first.try_recv().unwrap(), Kill::Revoked);
        assert!(second.try_recv().is_err());
        assert_eq!(sessions.count(), 1);
        drop(two);
        assert_eq!(sessions.count(), 0);
    }
}
