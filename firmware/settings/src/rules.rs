//! A layer of device rules: `[policy]`, and `policy` of a domain or an account.

use mail::session::Protocol;
use policy::{Layer, Mode, NewDevice};

use crate::quantity::{Date, Positive};
use crate::reader::{Read, Table, Value, choice};

/// Reads the layer's keys from a table.
pub(crate) fn layer(table: &mut Table<'_>) -> Layer {
    Layer {
        mode: mode(table),
        protocols: table.optional("protocols").map(names),
        networks: table.optional("networks"),
        countries: table
            .optional::<Vec<Country>>("countries")
            .map(|list| list.into_iter().map(|c| c.0).collect()),
        require_clientid: table.optional("require-clientid"),
        trusted_types: table
            .optional::<Vec<Type>>("trusted-types")
            .map(|list| list.into_iter().map(|t| t.0).collect()),
        weak_identity: table.optional("weak-identity"),
        max_devices: table.optional("max-devices").map(|Positive(number)| number),
        new_device: table.optional::<New>("new-device").map(|New(new)| new),
    }
}

#[derive(Clone, Copy)]
enum Word {
    Observe,
    Learn,
    Lock,
}

impl Read for Word {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &[("observe", Self::Observe), ("learn", Self::Learn), ("lock", Self::Lock)])
    }
}

/// `mode` and `learn-until`, which belong together.
fn mode(table: &mut Table<'_>) -> Option<Mode> {
    let word = table.optional::<Word>("mode");
    let until = table.value("learn-until");
    let date = until.as_ref().map(Date::read);
    match (word, date) {
        (None | Some(Word::Observe | Word::Lock), Some(_)) => {
            let mend = "set mode = \"learn\", or remove learn-until";
            until.and_then(|value| {
                value.contradiction("learn-until says nothing unless mode is \"learn\"", mend)
            })
        }
        (None, None) => None,
        (Some(Word::Observe), None) => Some(Mode::Observe),
        (Some(Word::Lock), None) => Some(Mode::Lock),
        (Some(Word::Learn), Some(date)) => date.map(|Date(until)| Mode::Learn { until }),
        (Some(Word::Learn), None) => table.missing(
            "learn-until",
            "add learn-until = 2026-12-31, the day on which learning ends and the lock begins",
        ),
    }
}

struct Name(Protocol);

impl Read for Name {
    fn read(value: &Value<'_>) -> Option<Self> {
        choice(value, &Protocol::ALL.map(|protocol| (protocol.name(), protocol))).map(Self)
    }
}

fn names(list: Vec<Name>) -> Vec<String> {
    list.into_iter().map(|Name(protocol)| protocol.name().to_owned()).collect()
}

/// ISO 3166-1 alpha-2, upper case.
struct Country(String);

impl Read for Country {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write two letters (ISO 3166-1), such as \"AT\"";
        let text = value.text("a country", mend)?;
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Some(Self(text.to_ascii_uppercase()));
        }
        value.wrong(format!("{text:?} is not a country code"), mend)
    }
}

/// A CLIENTID type: 1 to 16 letters, digits, `-`; `_` is taken as `-`, as on the wire (clientid.md Q9, Q11).
struct Type(String);

impl Read for Type {
    fn read(value: &Value<'_>) -> Option<Self> {
        let mend = "write a CLIENTID type of 1 to 16 letters, digits and -, such as \"UUID\"";
        let text = value.text("a CLIENTID type", mend)?;
        let kind = text.to_ascii_uppercase().replace('_', "-");
        if (1..=16).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Some(Self(kind));
        }
        value.wrong(format!("{text:?} is not a CLIENTID type"), mend)
    }
}

struct New(NewDevice);

impl Read for New {
    fn read(value: &Value<'_>) -> Option<Self> {
        use toml::de::DeValue;
        let mend = "write \"hold\" or { approve-for-days = 30 }";
        match value.get() {
            DeValue::Table(_) => {
                let mut table = value.table()?;
                let days = table.required("approve-for-days", mend);
                table.finish();
                days.map(|Positive(days)| Self(NewDevice::ApproveForDays(days)))
            }
            DeValue::String(_) => choice(value, &[("hold", NewDevice::Hold)]).map(Self),
            _ => value.wrong_type("\"hold\" or a table", mend),
        }
    }
}
