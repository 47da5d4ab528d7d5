//! `[box]`: the box itself.

use std::path::PathBuf;

use mail::Domain;

use crate::reader::Table;

/// `[box]`.
#[derive(Clone, Debug)]
pub struct Host {
    /// The box's own name, said in greetings and to backends.
    pub hostname: Domain,
    /// Folder of database, keys and journal; default `/var/lib/postern`. Only the gateway may read it.
    pub data: PathBuf,
    /// Domain of logins that name none; `None`: they stay without one.
    pub default_domain: Option<Domain>,
}

impl Host {
    pub(crate) fn read(table: &mut Table<'_>) -> Option<Self> {
        let hostname = table.required("hostname", "add hostname = \"mail.example.net\" to [box]");
        let data = table.or("data", PathBuf::from("/var/lib/postern"));
        let default_domain = table.optional("default-domain");
        Some(Self { hostname: hostname?, data, default_domain })
    }
}

/// Where this machine keeps things, whatever the document says: on the box its layout is fixed by init, and the same
/// document must serve on a plain server.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Instead of `[box] data`.
    pub data: Option<PathBuf>,
    /// Instead of `[control] socket`.
    pub control: Option<PathBuf>,
}
