//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use control::UnixSeconds;

use crate::when;

/// Manages a Postern mail front end: which devices may log in, to which mailboxes.
#[derive(Debug, Parser)]
#[command(name = "postern", version, after_help = AFTER, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Postern {
    /// The gateway's control socket [default: `$POSTERN_CONTROL`, else /run/postern/control]
    #[arg(long, global = true, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,

    /// Print the answer as one JSON object (with --follow and for `export`: see there), times in Unix seconds
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Accounts are named as people log in (alice@example.net); devices by the six characters in lists and alerts.
All times are UTC. A device is approved, revoked, … as soon as the command says so, and stays so after a power cut.

Exit codes:
  0  done
  1  refused, not found or invalid; `check` found mistakes; `self-test` or `health` found something broken
  2  the command line makes no sense
  3  no gateway answers at the socket

Examples:
  postern devices list alice@example.net
  postern devices approve alice@example.net 7f3k9q --until 30d
  postern simulate alice@example.net        what would a lock have refused?
  postern accounts lock alice@example.net
  postern events --account alice@example.net --follow
  postern check /etc/postern/settings.toml";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mail clients of an account: list, show, approve, rename, revoke, forget
    #[command(subcommand, visible_alias = "device")]
    Devices(Devices),

    /// Mailboxes and how strictly they are guarded: list, show, lock, observe, learn
    #[command(subcommand, visible_alias = "account")]
    Accounts(Accounts),

    /// What a lock now would have refused, of the logins seen so far
    #[command(
        after_help = "A lock refuses every device that is not approved. Run this before `postern accounts lock`."
    )]
    Simulate {
        /// Only this account; all without it
        account: Option<String>,
    },

    /// Failed logins by where they came from, the most first
    Attempts {
        /// Only against this account
        account: Option<String>,
    },

    /// Live sessions, or end one
    #[command(args_conflicts_with_subcommands = true)]
    Sessions(Sessions),

    /// The journal: logins, refusals, alerts, changes; oldest first
    Events(Events),

    /// Write the device database as one readable file (without any password or device token)
    #[command(
        after_help = "The file holds account names and keyed hashes of device tokens: keep it as safe as a backup. \
        Read back with `postern import`. With --json and FILE, a JSON object says how much was written."
    )]
    Export {
        /// Where to; readable by its owner alone, put in place when complete. Standard output without it
        file: Option<PathBuf>,
    },

    /// Read an export back into the device database, whole or not at all
    #[command(after_help = "Devices that the database has in a newer state are left as they are.")]
    Import {
        /// An export; - is standard input
        file: PathBuf,
    },

    /// Try the backends: do they learn who the client is, and is the box no open relay?
    SelfTest,

    /// Read settings and certificates again; no session ends
    #[command(
        after_help = "Bad settings change nothing: the old ones stay in force. Try them first with `postern check`."
    )]
    Reload,

    /// Counters since the gateway started
    Stats,

    /// Whether listeners, database and backends work
    Health,

    /// Check a settings file; needs no running gateway
    #[command(
        after_help = "Tells every mistake with file, line, column and how to mend it: syntax, unknown keys, wrong \
        values, contradictions, files and folders that cannot be reached. Exit code 0 if there is none, else 1."
    )]
    Check {
        /// The settings file
        file: PathBuf,

        /// Do not look for the files and folders that it names, as they are on another machine
        #[arg(long)]
        no_files: bool,
    },
}

/// Verbs on devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Devices of an account and whether they may log in
    List {
        /// Such as alice@example.net
        account: String,
    },
    /// All that is known of a device
    Show(Device),
    /// Let a device in, from now on
    Approve {
        #[command(flatten)]
        device: Device,
        /// Only until then: 2026-12-31 (its first second), 2026-12-31T18:00:00Z, 30d or 12h from now
        #[arg(long, value_name = "WHEN", value_parser = when::future)]
        until: Option<UnixSeconds>,
    },
    /// Give a device a name for people
    Rename {
        #[command(flatten)]
        device: Device,
        /// Such as "Alice's phone"; "" takes the name away
        name: String,
    },
    /// Send a device away and end its live sessions
    Revoke(Device),
    /// Drop the record of a device, as if it had never been seen
    Forget(Device),
}

/// One device.
#[derive(Args, Debug)]
pub(crate) struct Device {
    /// Such as alice@example.net
    pub(crate) account: String,
    /// The device's alias, six characters
    pub(crate) device: String,
}

/// Verbs on accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum Accounts {
    /// Accounts, their modes and how many devices they have
    List,
    /// One account
    Show {
        /// Such as alice@example.net
        account: String,
    },
    /// Admit approved devices only, and end the sessions of others
    #[command(after_help = "`postern simulate ACCOUNT` says beforehand whom this would refuse.")]
    Lock {
        /// Such as alice@example.net
        account: String,
    },
    /// Record devices and refuse nobody, unless the domain or the box is stricter
    Observe {
        /// Such as alice@example.net
        account: String,
    },
    /// Approve every device that logs in until a date, then lock
    Learn {
        /// Such as alice@example.net
        account: String,
        /// When it locks: 2026-12-31 (its first second), 2026-12-31T18:00:00Z, 14d or 12h from now
        #[arg(long, value_name = "WHEN", default_value = "14d", value_parser = when::future)]
        until: UnixSeconds,
    },
}

/// Sessions.
#[derive(Args, Debug)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    pub(crate) verb: Option<SessionsVerb>,

    /// Only of this account
    #[arg(long)]
    pub(crate) account: Option<String>,
}

/// Verbs on sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionsVerb {
    /// Live sessions, the oldest first
    List {
        /// Only of this account
        #[arg(long)]
        account: Option<String>,
    },
    /// End a live session; the device stays as it is and may come back
    Kill {
        /// Its id, as listed
        session: String,
    },
}

/// Events.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Only about this account
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Only from then on: 2026-12-31, 2026-12-31T18:00:00Z, 2d or 12h ago
    #[arg(long, value_name = "WHEN", value_parser = when::past)]
    pub(crate) since: Option<UnixSeconds>,
    /// At most this many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) limit: u32,
    /// Go on with new ones as they come, until Ctrl-C; with --json one object a line
    #[arg(long, short)]
    pub(crate) follow: bool,
}
