//! The database as one readable file: JSON lines between a header and a checksum. It holds no token and no key; the marks in
//! it mean something only with the box's key file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;

use policy::device::{Alias, Device};
use policy::simulate::Outcome;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::codec::hex;
use crate::devices::DEVICES_MAX;
use crate::engine::{Engine, damaged};
use crate::error::StoreError;
use crate::key::{Kind, Place};
use crate::record::{
    AccountRecord, Attempt, KeyValue, decode_device, decode_logins, encode_device, encode_logins, mac,
};

/// One line.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// The first.
    Postern(Header),
    Account(AccountRecord),
    Device(Of<Device>),
    Attempt(Of<Attempt>),
    Logins(Of<Vec<Outcome>>),
    /// The last: SHA-256 of all lines before it, line ends included, and their number.
    Checksum {
        sha256: String,
        lines: usize,
    },
}

#[derive(Deserialize, Serialize)]
struct Header {
    content: String,
    format: u32,
    /// Which key file the marks need.
    keys: String,
}

#[derive(Deserialize, Serialize)]
struct Of<T> {
    account: String,
    #[serde(rename = "is")]
    what: T,
}

const CONTENT: &str = "devices";
const FORMAT: u32 = 1;
/// Octets of one line.
const LINE_MAX: u64 = 64 << 10;
/// Lines of a file: four times what the store is sized for.
const LINES_MAX: usize = 1_000_000;

/// What an import put in place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    /// Accounts.
    pub accounts: usize,
    /// Devices.
    pub devices: usize,
}

/// Writes the whole database. Reads while others write: each record is whole, records of the last moments may be missing.
pub(crate) fn export(engine: &Engine, keys: &str, to: &mut dyn Write) -> Result<(), StoreError> {
    let mut out = Out { to, context: Context::new(&SHA256), lines: 0 };
    out.line(&Line::Postern(Header { content: CONTENT.to_owned(), format: FORMAT, keys: keys.to_owned() }))?;
    let mut names = HashMap::new();
    each(engine, Kind::Account, &mut |key, body| {
        let record = AccountRecord::decode(body).ok_or_else(|| damaged(key))?;
        names.extend(Place::of_key(key).map(|place| (place.0, record.name.clone())));
        out.line(&Line::Account(record))
    })?;
    let name = |key: &[u8]| Place::of_key(key).and_then(|place| names.get(&place.0)).cloned();
    each(engine, Kind::Device, &mut |key, body| {
        let what = decode_device(body).ok_or_else(|| damaged(key))?;
        name(key).map_or(Ok(()), |account| out.line(&Line::Device(Of { account, what })))
    })?;
    each(engine, Kind::Attempt, &mut |key, body| {
        let what = Attempt::decode(body).ok_or_else(|| damaged(key))?;
        name(key).map_or(Ok(()), |account| out.line(&Line::Attempt(Of { account, what })))
    })?;
    each(engine, Kind::Logins, &mut |key, body| {
        let what = decode_logins(body).ok_or_else(|| damaged(key))?;
        name(key).map_or(Ok(()), |account| out.line(&Line::Logins(Of { account, what })))
    })?;
    let checksum = Line::Checksum { sha256: hex(out.context.clone().finish().as_ref()), lines: out.lines };
    out.line(&checksum)?;
    out.to.flush().map_err(|error| StoreError::Io(format!("export: {error}")))
}

type EachRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

fn each(engine: &Engine, kind: Kind, work: &mut EachRecord<'_>) -> Result<(), StoreError> {
    let mut result = Ok(());
    engine.scan(&[kind as u8], &mut |key, body| {
        result = work(key, body);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

struct Out<'a> {
    to: &'a mut dyn Write,
    context: Context,
    lines: usize,
}

impl Out<'_> {
    fn line(&mut self, line: &Line) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Io(format!("export: {error}"));
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        self.context.update(&text);
        self.lines += 1;
        self.to.write_all(&text).map_err(failed)
    }
}

/// Keys and bodies in the order of the keys.
pub(crate) type Records = Vec<KeyValue>;

/// Reads and checks a whole file. Nothing is changed by it.
pub(crate) fn read(keys: &str, from: &mut dyn BufRead) -> Result<(Records, Imported), StoreError> {
    let mut lines = Lines { from, context: Context::new(&SHA256), number: 0 };
    match lines.next()? {
        Some(Line::Postern(header)) if header.content == CONTENT && header.format == FORMAT => {
            if header.keys != keys {
                return Err(lines
                    .error("it was made with another key file, so none of its devices could be recognised"));
            }
        }
        Some(_) | None => return Err(lines.error("this is no device export of a format known here")),
    }
    let mut records = BTreeMap::new();
    let mut accounts = HashSet::new();
    let mut devices: HashMap<String, usize> = HashMap::new();
    loop {
        let before = lines.context.clone();
        let number = lines.number;
        let Some(line) = lines.next()? else {
            return Err(lines.error("the file is cut off: its checksum is missing"));
        };
        let (key, body) = match line {
            Line::Postern(_) => return Err(lines.error("a second header")),
            Line::Account(record) => {
                if record.name.is_empty() || record.name.chars().any(char::is_control) {
                    return Err(lines.error("no name for an account"));
                }
                accounts.insert(record.name.clone());
                let body = record.encode().map_err(|error| lines.error(&error.to_string()))?;
                (Place::of(&record.name).key(Kind::Account), body)
            }
            Line::Device(Of { account, what }) => {
                lines.check_account(&accounts, &account)?;
                lines.check_alias(&what.alias)?;
                if what.marks.len() > Device::MARKS || what.marks.iter().any(|mark| mac(mark).is_none()) {
                    return Err(lines.error("marks that are none"));
                }
                let count = devices.entry(account.clone()).or_default();
                *count += 1;
                if *count > DEVICES_MAX {
                    return Err(lines.error("more devices than an account may have"));
                }
                (Place::of(&account).keyed(Kind::Device, &what.alias), encode_device(&what))
            }
            Line::Attempt(Of { account, what }) => {
                lines.check_account(&accounts, &account)?;
                lines.check_alias(&what.alias)?;
                if what.marks.iter().any(|mark| mac(mark).is_none()) {
                    return Err(lines.error("marks that are none"));
                }
                (Place::of(&account).keyed(Kind::Attempt, &what.alias), what.encode())
            }
            Line::Logins(Of { account, what }) => {
                lines.check_account(&accounts, &account)?;
                (Place::of(&account).key(Kind::Logins), encode_logins(&what))
            }
            Line::Checksum { sha256, lines: count } => {
                if sha256 != hex(before.finish().as_ref()) || count != number {
                    return Err(lines.error("the checksum is wrong: the file was changed or damaged"));
                }
                if lines.next()?.is_some() {
                    return Err(lines.error("more lines behind the checksum"));
                }
                let imported = Imported { accounts: accounts.len(), devices: devices.values().sum() };
                return Ok((records.into_iter().collect(), imported));
            }
        };
        if records.insert(key, body).is_some() {
            return Err(lines.error("the same thing twice"));
        }
    }
}

struct Lines<'a> {
    from: &'a mut dyn BufRead,
    context: Context,
    number: usize,
}

impl Lines<'_> {
    fn error(&self, reason: &str) -> StoreError {
        StoreError::Import { line: self.number.max(1), reason: reason.to_owned() }
    }

    fn next(&mut self) -> Result<Option<Line>, StoreError> {
        let mut text = Vec::new();
        let read = (&mut *self.from).take(LINE_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| self.error(&error.to_string()))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.number > LINES_MAX {
            return Err(self.error("too many lines"));
        }
        if text.last() != Some(&b'\n') {
            return Err(self.error("a line that is cut off, or too long"));
        }
        self.context.update(&text);
        // serde_json's message may quote what it read; no line holds a secret.
        serde_json::from_slice(&text).map(Some).map_err(|error| self.error(&error.to_string()))
    }

    fn check_account(&self, accounts: &HashSet<String>, account: &str) -> Result<(), StoreError> {
        if accounts.contains(account) {
            Ok(())
        } else {
            Err(self.error("an account that was not named before"))
        }
    }

    fn check_alias(&self, alias: &Alias) -> Result<(), StoreError> {
        let good = (1..=16).contains(&alias.0.len())
            && alias.0.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if good { Ok(()) } else { Err(self.error("an alias that is none")) }
    }
}
