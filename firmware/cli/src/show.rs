//! Answers for people.

use control::devices::DeviceRow;
use control::{
    AccountRow, AttemptRow, EventRow, Finding, Health, Response, SessionRow, Severity, Simulation, State,
    Stats, UnixSeconds,
};
use policy::{Alias, Mode, Standing, Strength};

use crate::table::{Table, pairs, plain};
use crate::when::{now, shown};

/// The text of a whole answer.
pub(crate) fn answer(answer: &Response) -> String {
    match answer {
        Response::Done { text } => plain(text) + "\n",
        Response::Devices(page) => devices(&page.rows, now()),
        Response::Device(row) => device(row, now()),
        Response::Revoked { device: row, sessions_ended } => {
            format!(
                "{}\n{}",
                device(row, now()),
                count(u64::from(*sessions_ended), "live session ends", "live sessions end")
            )
        }
        Response::Accounts(page) => accounts(&page.rows),
        Response::Account(row) => account(row),
        Response::Attempts(page) => attempts(&page.rows),
        Response::Sessions(page) => sessions(&page.rows),
        Response::Simulation(report) => simulation(report),
        Response::Events(page) => events(&page.rows, true),
        Response::Export(chunk) => chunk.text.clone(),
        Response::Imported(imported) => pairs(&[
            ("accounts read", imported.accounts.to_string()),
            ("devices written", imported.devices.to_string()),
            ("kept, newer here", imported.kept.to_string()),
        ]),
        Response::Stats(figures) => stats(figures),
        Response::Health(report) => health(report),
        Response::SelfTest(page) => findings(&page.rows),
        Response::Error(error) => format!("{error}\n"),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}\n") } else { format!("{number} {many}\n") }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn time(at: Option<UnixSeconds>) -> String {
    at.map(shown).unwrap_or_default()
}

fn alias(alias: Option<&Alias>) -> String {
    alias.map(|alias| alias.0.clone()).unwrap_or_default()
}

/// `192.0.2.1 (AT)`.
fn place(address: Option<String>, country: Option<&str>) -> String {
    match (address, country) {
        (Some(address), Some(country)) => format!("{address} ({country})"),
        (Some(address), None) => address,
        (None, country) => or_dash(country),
    }
}

fn standing(standing: Standing, now: UnixSeconds) -> String {
    match standing {
        Standing::Pending => "pending".to_owned(),
        Standing::Approved { until: None } => "approved".to_owned(),
        Standing::Approved { until: Some(until) } if now < until => {
            format!("approved until {}", shown(until))
        }
        Standing::Approved { until: Some(until) } => format!("approval ran out {}", shown(until)),
        Standing::Revoked => "revoked".to_owned(),
    }
}

fn strength(strength: Strength) -> &'static str {
    match strength {
        Strength::Weak => "weak",
        Strength::Medium => "medium",
        Strength::Strong => "strong",
    }
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Observe => "observe".to_owned(),
        Mode::Learn { until } => format!("learn until {}", shown(until)),
        Mode::Lock => "lock".to_owned(),
    }
}

fn devices(rows: &[DeviceRow], now: UnixSeconds) -> String {
    if rows.is_empty() {
        return "no device is known for this account\n".to_owned();
    }
    let titles =
        ["DEVICE", "NAME", "STANDING", "IDENTITY", "LAST SEEN (UTC)", "PROTOCOL", "FROM", "LOGINS", "CLIENT"];
    let mut table = Table::new(&titles);
    for row in rows {
        table.row([
            row.alias.0.clone(),
            row.name.clone(),
            standing(row.standing, now),
            format!("{} ({})", strength(row.strength), row.kinds.join(", ")),
            time(row.last_seen),
            or_dash(row.protocol.as_deref()),
            place(row.address.map(|address| address.to_string()), row.country.as_deref()),
            row.logins.to_string(),
            row.client.clone(),
        ]);
    }
    table.show()
}

fn device(row: &DeviceRow, now: UnixSeconds) -> String {
    pairs(&[
        ("device", row.alias.0.clone()),
        ("account", row.account.clone()),
        ("name", row.name.clone()),
        ("standing", standing(row.standing, now)),
        ("identity", format!("{} ({})", strength(row.strength), row.kinds.join(", "))),
        ("client", row.client.clone()),
        ("first seen", format!("{} UTC", shown(row.first_seen))),
        ("last seen", row.last_seen.map(|at| format!("{} UTC", shown(at))).unwrap_or_default()),
        ("protocol", or_dash(row.protocol.as_deref())),
        ("from", place(row.address.map(|address| address.to_string()), row.country.as_deref())),
        ("logins", row.logins.to_string()),
    ])
}

fn accounts(rows: &[AccountRow]) -> String {
    if rows.is_empty() {
        return "no account is known yet\n".to_owned();
    }
    let titles = [
        "ACCOUNT",
        "MODE",
        "SET BY",
        "APPROVED",
        "PENDING",
        "REVOKED",
        "SESSIONS",
        "LAST SEEN (UTC)",
        "BACKEND",
    ];
    let mut table = Table::new(&titles);
    for row in rows {
        table.row([
            row.account.clone(),
            mode(row.mode),
            row.mode_from.clone(),
            row.approved.to_string(),
            row.pending.to_string(),
            row.revoked.to_string(),
            row.sessions.to_string(),
            time(row.last_seen),
            or_dash(row.backend.as_deref()),
        ]);
    }
    table.show()
}

fn account(row: &AccountRow) -> String {
    let backend = row.backend.clone().unwrap_or_else(|| "none: no route leads to a backend".to_owned());
    pairs(&[
        ("account", row.account.clone()),
        ("mode", format!("{} (set by {})", mode(row.mode), row.mode_from)),
        ("approved devices", row.approved.to_string()),
        ("pending devices", row.pending.to_string()),
        ("revoked devices", row.revoked.to_string()),
        ("live sessions", row.sessions.to_string()),
        ("last seen", row.last_seen.map(|at| format!("{} UTC", shown(at))).unwrap_or_default()),
        ("backend", backend),
    ])
}

fn attempts(rows: &[AttemptRow]) -> String {
    if rows.is_empty() {
        return "no failed attempt is on record\n".to_owned();
    }
    let titles = ["NETWORK", "COUNTRY", "FAILURES", "ACCOUNT", "FIRST (UTC)", "LAST (UTC)", "HELD OFF UNTIL"];
    let mut table = Table::new(&titles);
    for row in rows {
        table.row([
            row.network.clone(),
            or_dash(row.country.as_deref()),
            row.failures.to_string(),
            or_dash(row.account.as_deref()),
            shown(row.first),
            shown(row.last),
            time(row.blocked_until),
        ]);
    }
    table.show()
}

fn sessions(rows: &[SessionRow]) -> String {
    if rows.is_empty() {
        return "no session is live\n".to_owned();
    }
    let titles = ["SESSION", "ACCOUNT", "DEVICE", "PROTOCOL", "FROM", "SINCE (UTC)", "IN", "OUT", "BACKEND"];
    let mut table = Table::new(&titles);
    for row in rows {
        table.row([
            row.session.clone(),
            row.account.clone(),
            alias(row.device.as_ref()),
            row.protocol.clone(),
            row.address.to_string(),
            shown(row.since),
            size(row.octets_in),
            size(row.octets_out),
            row.backend.clone(),
        ]);
    }
    table.show()
}

fn simulation(report: &Simulation) -> String {
    let whom = report.account.as_deref().map_or_else(String::new, |account| format!(" {}", plain(account)));
    let since = report.since.map_or_else(String::new, |since| format!(" since {} UTC", shown(since)));
    let (logins, refused) = (report.logins, report.would_refuse);
    if logins == 0 {
        return format!("no login was seen yet{since}, so there is nothing to tell\n");
    }
    if refused == 0 {
        return format!("locking{whom} now would have refused none of {logins} logins{since}\n");
    }
    let titles = ["ACCOUNT", "DEVICE", "PROTOCOL", "LOGINS", "LAST (UTC)", "FROM", "WHY", "CLIENT"];
    let mut table = Table::new(&titles);
    for row in &report.refused.rows {
        table.row([
            row.account.clone(),
            alias(row.device.as_ref()),
            row.protocol.clone(),
            row.logins.to_string(),
            shown(row.last),
            row.address.map(|address| address.to_string()).unwrap_or_default(),
            row.reason.clone(),
            row.client.clone(),
        ]);
    }
    format!(
        "locking{whom} now would have refused {refused} of {logins} logins{since}, these:\n\n{}",
        table.show()
    )
}

/// One line each, not a table: with `--follow` nobody knows how wide the next will be. `first`: say so if there is none.
pub(crate) fn events(rows: &[EventRow], first: bool) -> String {
    if rows.is_empty() && first {
        return "no event is on record\n".to_owned();
    }
    let line = |row: &EventRow| {
        let device = row.device.as_ref().map(|alias| format!("device {}", alias.0));
        let from = place(row.address.map(|address| address.to_string()), row.country.as_deref());
        let from = (!from.is_empty()).then(|| format!("from {from}"));
        let session = row.session.as_ref().map(|session| format!("[{session}]"));
        let parts = [row.account.clone(), device, row.protocol.clone(), from, session];
        let parts = parts.into_iter().flatten().map(|part| plain(&part)).collect::<Vec<_>>().join(" ");
        let parts = if parts.is_empty() { parts } else { format!("{parts}: ") };
        format!("{}  {:<18} {parts}{}\n", shown(row.at), plain(&row.kind), plain(&row.text))
    };
    rows.iter().map(line).collect()
}

fn stats(figures: &Stats) -> String {
    pairs(&[
        ("version", figures.version.clone()),
        ("running since", format!("{} UTC", shown(figures.started))),
        ("connections taken", figures.connections.to_string()),
        ("connections open", figures.open.to_string()),
        ("sessions live", figures.sessions.to_string()),
        ("logins", figures.logins.to_string()),
        ("failed logins", figures.failures.to_string()),
        ("messages handed on", figures.messages.to_string()),
        ("accounts", figures.accounts.to_string()),
        ("devices", figures.devices.to_string()),
        ("database on disk", size(figures.database_octets)),
        ("memory", size(figures.memory_octets)),
    ])
}

fn state(state: State) -> &'static str {
    match state {
        State::Well => "well",
        State::Ready => "ready",
        State::Failing => "failing",
    }
}

fn health(report: &Health) -> String {
    let mut table = Table::new(&["PART", "STATE", ""]);
    for part in &report.parts {
        table.row([part.name.clone(), state(part.state).to_owned(), part.text.clone()]);
    }
    format!("{}\n\n{}", state(report.state), table.show())
}

fn findings(rows: &[Finding]) -> String {
    if rows.is_empty() {
        return "nothing to mend was found\n".to_owned();
    }
    let line = |row: &Finding| {
        let severity = match row.severity {
            Severity::Fine => "fine",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        };
        let place = [row.backend.as_str(), row.protocol.as_str()];
        let place = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let place = if place.is_empty() { "the box".to_owned() } else { plain(&place) };
        let mend = if row.mend.is_empty() {
            String::new()
        } else {
            format!("         mend: {}\n", plain(&row.mend))
        };
        format!("{severity:<7}  {place}: {}: {}\n{mend}", plain(&row.check), plain(&row.text))
    };
    rows.iter().map(line).collect()
}

/// `17 B`, `1.5 KiB`: cut, not rounded.
fn size(octets: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| octets >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", octets / unit, octets % unit * 10 / unit),
        None => format!("{octets} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings_know_what_time_it_is() {
        let until = Standing::Approved { until: Some(1_798_740_000) };
        assert_eq!(standing(until, 1_798_739_999), "approved until 2026-12-31 18:00:00");
        assert_eq!(standing(until, 1_798_740_000), "approval ran out 2026-12-31 18:00:00");
        assert_eq!(standing(Standing::Approved { until: None }, 0), "approved");
    }

    #[test]
    fn sizes_are_cut() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1 << 40, "1.0 TiB"),
        ];
        for (octets, text) in cases {
            assert_eq!(size(octets), text);
        }
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
