//! What can be asked of the gateway.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::transfer::Chunk;

/// One question or order. Accounts are named as people write them: the gateway makes them canonical. Devices are named
/// by their alias within the account.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// All devices of an account. Answer: [`Devices`](crate::Response::Devices).
    DevicesList {
        /// Whose.
        account: String,
    },
    /// One device. Answer: [`Device`](crate::Response::Device).
    DevicesShow {
        /// Whose.
        account: String,
        /// Its alias.
        device: String,
    },
    /// Lets a device in, now and without a restart. Answer: [`Device`](crate::Response::Device), once it is durable.
    DevicesApprove {
        /// Whose.
        account: String,
        /// Its alias.
        device: String,
        /// The first second at which it is out again; `None`: for good.
        until: Option<UnixSeconds>,
    },
    /// Gives a device a name for people. Answer: [`Device`](crate::Response::Device).
    DevicesRename {
        /// Whose.
        account: String,
        /// Its alias.
        device: String,
        /// Its name; empty takes it away.
        name: String,
    },
    /// Sends a device away for good and ends its live sessions. Answer: [`Revoked`](crate::Response::Revoked), once it
    /// is durable and the sessions are ending.
    DevicesRevoke {
        /// Whose.
        account: String,
        /// Its alias.
        device: String,
    },
    /// Drops the record of a device, as if it had never been seen. Ends its live sessions if the account is locked.
    /// Answer: [`Done`](crate::Response::Done).
    DevicesForget {
        /// Whose.
        account: String,
        /// Its alias.
        device: String,
    },
    /// Every account that the box knows by settings or database. Answer: [`Accounts`](crate::Response::Accounts).
    AccountsList,
    /// One account. Answer: [`Account`](crate::Response::Account).
    AccountsShow {
        /// Which.
        account: String,
    },
    /// Admits approved devices only, from now on, and ends live sessions of others. Answer:
    /// [`Account`](crate::Response::Account).
    AccountsLock {
        /// Which.
        account: String,
    },
    /// Records and refuses nobody, if no layer above is stricter. Answer: [`Account`](crate::Response::Account).
    AccountsObserve {
        /// Which.
        account: String,
    },
    /// Approves what logs in, then locks. Answer: [`Account`](crate::Response::Account).
    AccountsLearn {
        /// Which.
        account: String,
        /// The first second at which it locks.
        until: UnixSeconds,
    },
    /// Failed attempts by where they came from. Answer: [`Attempts`](crate::Response::Attempts).
    Attempts {
        /// Only against this account.
        account: Option<String>,
    },
    /// Live sessions. Answer: [`Sessions`](crate::Response::Sessions).
    SessionsList {
        /// Only of this account.
        account: Option<String>,
    },
    /// Ends one live session. Answer: [`Done`](crate::Response::Done).
    SessionsKill {
        /// Its connection id.
        session: String,
    },
    /// What a lock now would have refused. Answer: [`Simulation`](crate::Response::Simulation).
    Simulate {
        /// Only of this account.
        account: Option<String>,
    },
    /// The journal. Answer: [`Events`](crate::Response::Events), oldest first.
    Events {
        /// Only about this account.
        account: Option<String>,
        /// Only from this second on.
        since: Option<UnixSeconds>,
        /// At most this many, the newest; 0: as many as there are.
        limit: u32,
        /// Go on with new ones as they come, until the client hangs up.
        follow: bool,
    },
    /// The whole device database. Answer: [`Export`](crate::Response::Export) parts.
    Export,
    /// A part of an export to read back; several in a row, the last one marked. Each is answered:
    /// [`Done`](crate::Response::Done) asks for the next, [`Imported`](crate::Response::Imported) ends it. Nothing
    /// counts before the last part was read and checked.
    Import(Chunk),
    /// Counters. Answer: [`Stats`](crate::Response::Stats).
    Stats,
    /// How the gateway is. Answer: [`Health`](crate::Response::Health).
    Health,
    /// Reads settings and certificates again; live sessions stay. Answer: [`Done`](crate::Response::Done).
    Reload,
    /// Tries the backends: do they believe who the client is, and is the box no open relay (clientid.md §5)? Answer:
    /// [`SelfTest`](crate::Response::SelfTest).
    SelfTest,
}
