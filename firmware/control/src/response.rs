//! What the gateway answers.

use serde::{Deserialize, Serialize};

use crate::{
    AccountRow, AttemptRow, Chunk, ControlError, DeviceRow, EventRow, Finding, Health, Imported, Page,
    SessionRow, Simulation, Stats,
};

/// One frame of an answer. Lists come in pages, of which the last says so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    /// It is done, durably; the sentence says what.
    Done {
        /// For people.
        text: String,
    },
    /// Devices, by alias.
    Devices(Page<DeviceRow>),
    /// One device, as it is now.
    Device(DeviceRow),
    /// A device as it is now, revoked, and how many of its sessions are ending.
    Revoked {
        /// The device.
        device: DeviceRow,
        /// Live sessions that are being ended.
        sessions_ended: u32,
    },
    /// Accounts, by name.
    Accounts(Page<AccountRow>),
    /// One account, as it is now.
    Account(AccountRow),
    /// Failed attempts, the most first.
    Attempts(Page<AttemptRow>),
    /// Live sessions, the oldest first.
    Sessions(Page<SessionRow>),
    /// What a lock would have refused.
    Simulation(Simulation),
    /// Events, oldest first. A follower gets pages with `more` for as long as it listens.
    Events(Page<EventRow>),
    /// A part of the export.
    Export(Chunk),
    /// The import is in the database, durably.
    Imported(Imported),
    /// Counters.
    Stats(Stats),
    /// How the gateway is.
    Health(Health),
    /// What the self-test found; an empty list means that there is nothing to mend.
    SelfTest(Page<Finding>),
    /// It is not done.
    Error(ControlError),
}

impl Response {
    /// Whether no further frame belongs to this answer.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Devices(page) => !page.more,
            Self::Accounts(page) => !page.more,
            Self::Attempts(page) => !page.more,
            Self::Sessions(page) => !page.more,
            Self::Events(page) => !page.more,
            Self::SelfTest(page) => !page.more,
            Self::Simulation(simulation) => !simulation.refused.more,
            Self::Export(chunk) => chunk.last,
            Self::Done { .. }
            | Self::Device(_)
            | Self::Revoked { .. }
            | Self::Account(_)
            | Self::Imported(_)
            | Self::Stats(_)
            | Self::Health(_)
            | Self::Error(_) => true,
        }
    }
}

impl Response {
    /// Joins the next frame of the same answer. One of another sort takes the place of what was there: an error may end
    /// a list.
    pub fn join(&mut self, next: Self) {
        match (&mut *self, next) {
            (Self::Devices(page), Self::Devices(next)) => page.join(next),
            (Self::Accounts(page), Self::Accounts(next)) => page.join(next),
            (Self::Attempts(page), Self::Attempts(next)) => page.join(next),
            (Self::Sessions(page), Self::Sessions(next)) => page.join(next),
            (Self::Events(page), Self::Events(next)) => page.join(next),
            (Self::SelfTest(page), Self::SelfTest(next)) => page.join(next),
            (Self::Simulation(simulation), Self::Simulation(next)) => simulation.refused.join(next.refused),
            (Self::Export(chunk), Self::Export(next)) => {
                chunk.text.push_str(&next.text);
                chunk.last = next.last;
            }
            (_, next) => *self = next,
        }
    }
}

impl From<ControlError> for Response {
    fn from(error: ControlError) -> Self {
        Self::Error(error)
    }
}
