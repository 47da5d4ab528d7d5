//! The document as a whole.

use std::collections::BTreeMap;
use std::path::Path;

use mail::{Account, Domain};
use policy::Layer;
use toml::Spanned;
use toml::de::DeTable;

use crate::account::AccountSettings;
use crate::domain::DomainSettings;
use crate::error::{Kind, SettingsError};
use crate::host::Places;
use crate::reader::{Entry, Mistake, Report, Table};
use crate::route::{RawRoutes, Routes};
use crate::{
    Abuse, Alerts, Backend, Control, Dns, Events, Geo, Host, Limits, Listen, Log, Metrics, Network,
    Submission, Tls, check, rules,
};

/// Everything a box is told. Plain values: whoever holds one knows that it holds together.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[box]`.
    pub host: Host,
    /// `[listen]`.
    pub listen: Listen,
    /// `[tls]`.
    pub tls: Tls,
    /// `[backends.NAME]`; at least one, each with at least one server.
    pub backends: BTreeMap<String, Backend>,
    /// `[routes]`; every name in it is in `backends`.
    pub routes: Routes,
    /// `[domains."example.net"]`.
    pub domains: BTreeMap<Domain, DomainSettings>,
    /// `[accounts."alice@example.net"]`, by canonical name.
    pub accounts: BTreeMap<Account, AccountSettings>,
    /// `[policy]`: the box's layer of rules.
    pub policy: Layer,
    /// `[abuse]`.
    pub abuse: Abuse,
    /// `[limits]`.
    pub limits: Limits,
    /// `[submission]`.
    pub submission: Submission,
    /// `[alerts]`.
    pub alerts: Alerts,
    /// `[geo]`.
    pub geo: Geo,
    /// `[dns]`.
    pub dns: Dns,
    /// `[network]`; of use on the box alone.
    pub network: Network,
    /// `[log]`.
    pub log: Log,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[control]`.
    pub control: Control,
    /// `[events]`.
    pub events: Events,
    /// Domain aliases with the domain they stand for.
    pub(crate) aliases: BTreeMap<Domain, Domain>,
}

/// The layout of the document that this version reads.
const SCHEMA: u64 = 1;

impl Settings {
    /// Reads a document. `name` is the file's name for messages; relative paths in it start at its folder.
    ///
    /// # Errors
    /// Every mistake found, in the order of the document: all of the syntax first, then all of keys and values, then
    /// all contradictions. Files that it names are not looked for; see [`Settings::load`].
    pub fn parse(text: &str, name: &Path) -> Result<Self, Vec<SettingsError>> {
        Self::read(text, name, &Places::default(), |_, _| Vec::new())
    }

    /// [`Settings::parse`] with this machine's places, and further checks on what was read.
    pub(crate) fn read(
        text: &str,
        name: &Path,
        places: &Places,
        more: impl FnOnce(&Self, &Spanned<DeTable<'_>>) -> Vec<Mistake>,
    ) -> Result<Self, Vec<SettingsError>> {
        let place = |mistake| SettingsError::at(name.to_path_buf(), text, mistake);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| place(syntax(text, error))).collect());
        }
        let report = Report::new(name.parent().unwrap_or(Path::new("")));
        let settings = Self::document(Table::document(&document, &report));
        let mut mistakes = report.into_mistakes();
        let settings = match settings {
            Some((mut settings, more_mistakes)) if mistakes.is_empty() => {
                settings.host.data = places.data.clone().unwrap_or(settings.host.data);
                settings.control.socket = places.control.clone().unwrap_or(settings.control.socket);
                mistakes.extend(more_mistakes);
                mistakes.extend(check::contradictions(&settings, &document));
                mistakes.extend(more(&settings, &document));
                Some(settings)
            }
            _ => None,
        };
        mistakes.sort_by_key(|mistake| mistake.span.start);
        match settings {
            Some(settings) if mistakes.is_empty() => Ok(settings),
            _ => Err(mistakes.into_iter().map(place).collect()),
        }
    }

    /// `None` only after a note in the report.
    fn document(mut table: Table<'_>) -> Option<(Self, Vec<Mistake>)> {
        if let Some(value) = table.value("schema")
            && <u64 as crate::reader::Read>::read(&value).is_some_and(|schema| schema != SCHEMA)
        {
            let _: Option<()> = value.wrong(
                format!("this version of Postern reads schema {SCHEMA}"),
                "bring the document to this layout; the changelog says what changed",
            );
        }
        let host = table.section("box", Host::read);
        let listen = table.section("listen", Listen::read);
        let tls = table.section("tls", Tls::read);
        let backends = table.entries("backends").iter().filter_map(Backend::read).collect();
        let RawRoutes { default, domains: by_domain, accounts: raw_routes, http, other_domains } =
            RawRoutes::read(table.open("routes"));
        let domains =
            table.entries("domains").iter().filter_map(DomainSettings::read).collect::<BTreeMap<_, _>>();
        let raw_accounts = table.entries("accounts");
        let raw_accounts =
            raw_accounts.iter().filter_map(|entry| Some((entry, AccountSettings::read(entry)?)));
        let raw_accounts = raw_accounts.collect::<Vec<_>>();
        let policy = table.section("policy", rules::layer);
        let abuse = table.section("abuse", Abuse::read);
        let limits = table.section("limits", Limits::read);
        let submission = table.section("submission", Submission::read);
        let alerts = table.section("alerts", Alerts::read);
        let geo = table.section("geo", Geo::read);
        let dns = table.section("dns", Dns::read);
        let network = table.section("network", Network::read);
        let log = table.section("log", Log::read);
        let metrics = table.section("metrics", Metrics::read);
        let control = table.section("control", Control::read);
        let events = table.section("events", Events::read);
        table.finish();

        let mut mistakes = Vec::new();
        let aliases = domains.iter().flat_map(|(domain, settings): (&Domain, &DomainSettings)| {
            settings.aliases.iter().map(move |alias| (alias.clone(), domain.clone()))
        });
        let aliases = aliases.collect();
        let routes =
            Routes { default, domains: by_domain, accounts: BTreeMap::new(), http, other_domains: false };
        let mut settings = Self {
            host: host?,
            listen,
            tls: tls?,
            backends,
            routes,
            domains,
            accounts: BTreeMap::new(),
            policy,
            abuse,
            limits,
            submission,
            alerts,
            geo,
            dns,
            network,
            log,
            metrics,
            control,
            events,
            aliases,
        };
        settings.name_accounts(&raw_accounts, raw_routes, &mut mistakes);
        settings.routes.other_domains = other_domains.unwrap_or(!settings.names_a_domain());
        if settings.routes.default.is_none() && settings.backends.len() == 1 {
            settings.routes.default = settings.backends.keys().next().cloned();
        }
        Some((settings, mistakes))
    }

    /// Files accounts and their routes under canonical names.
    fn name_accounts(
        &mut self,
        accounts: &[(&Entry<'_>, AccountSettings)],
        routes: Vec<(Entry<'_>, String)>,
        mistakes: &mut Vec<Mistake>,
    ) {
        for (entry, backend) in routes {
            let Ok(account) = self.canonical(entry.name.as_bytes()) else {
                mistakes.push(bad_account(&entry, false));
                continue;
            };
            if self.routes.accounts.insert(account, backend).is_some() {
                mistakes.push(bad_account(&entry, true));
            }
        }
        for (entry, account) in accounts {
            let Ok(name) = self.canonical(entry.name.as_bytes()) else {
                mistakes.push(bad_account(entry, false));
                continue;
            };
            if let Some(backend) = &account.backend {
                let elsewhere = self.routes.accounts.entry(name.clone()).or_insert_with(|| backend.clone());
                if elsewhere != backend {
                    let what = format!(
                        "[routes.accounts] sends this account to {elsewhere:?}, and here it is at {backend:?}"
                    );
                    let mend = "name its backend in one place only";
                    mistakes.push(entry.mistake(Kind::Contradiction, what, mend));
                }
            }
            if self.accounts.insert(name, account.clone()).is_some() {
                mistakes.push(bad_account(entry, true));
            }
        }
    }

    fn names_a_domain(&self) -> bool {
        !self.domains.is_empty() || !self.routes.domains.is_empty() || self.host.default_domain.is_some()
    }
}

fn bad_account(entry: &Entry<'_>, twice: bool) -> Mistake {
    if twice {
        let what = format!(
            "{:?} is the same account as another entry, by case, alias or default domain",
            entry.name
        );
        entry.mistake(Kind::Contradiction, what, "keep one of them")
    } else {
        let what = format!("{:?} is not the name of an account", entry.name);
        entry.mistake(Kind::Value, what, "write it as \"alice@example.net\"")
    }
}

/// A mistake of the TOML itself, in the parser's words.
pub(crate) fn syntax(text: &str, error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or(text.len()..text.len());
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    let mend = "write it as TOML has it: key = value, texts in double quotes, sections in [ ]".to_owned();
    Mistake { span, key: String::new(), kind: Kind::Syntax, what, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../example.toml");

    /// The example with every `#key = …` line set.
    fn all_set() -> String {
        let set = EXAMPLE.lines().map(|line| {
            let key = line
                .strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '"'));
            key.unwrap_or(line)
        });
        set.collect::<Vec<_>>().join("\n")
    }

    fn parse(text: &str) -> Settings {
        Settings::parse(text, Path::new("example.toml")).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(SettingsError::explain).collect::<String>())
        })
    }

    #[test]
    fn the_example_is_a_document_as_it_stands_and_with_everything_set() {
        let plain = parse(EXAMPLE);
        assert_eq!((plain.listen.imap.len(), plain.listen.all().count()), (0, 3));
        let full = parse(&all_set());
        assert_eq!((full.listen.imap.len(), full.listen.all().count()), (1, 6));
        assert!(full.policy.countries.is_some() && plain.policy == Layer::default());
    }

    /// The reader tells which keys it asked for in vain: with everything set there are none, so the example has every
    /// key that there is. It tells keys that nobody asked for, too: so the example has no other.
    #[test]
    fn every_key_is_in_the_example() {
        let text = all_set();
        let document = DeTable::parse(&text).unwrap();
        let report = Report::new(Path::new(""));
        assert!(Settings::document(Table::document(&document, &report)).is_some());
        let absent = report.absent();
        let mistakes = report.into_mistakes();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        // Shown once, in the sections above: a lock has no date.
        let shown = ["accounts.\"alice@example.net\".policy.learn-until", "policy.learn-until"];
        let absent = absent.into_iter().filter(|key| !shown.contains(&key.as_str())).collect::<Vec<_>>();
        assert!(absent.is_empty(), "the example lacks {absent:?}");
    }

    /// "Default: X" in the example is what the reader takes: setting each default changes nothing.
    #[test]
    fn defaults_are_what_the_example_says() {
        let mut lines = Vec::new();
        // The text above the keys, which speaks of all of them until the next text.
        let mut comment = String::new();
        let mut spoken = false;
        for line in EXAMPLE.lines() {
            if let Some(text) = line.strip_prefix("# ") {
                if std::mem::take(&mut spoken) {
                    comment.clear();
                }
                comment = format!("{comment} {text}");
                lines.push(line);
            } else if let Some(key) = line.strip_prefix('#').filter(|key| !key.is_empty()) {
                spoken = true;
                let value = key.split_once(" = ").map_or("", |(_, value)| value);
                let default =
                    comment.contains(&format!("Default: {value}.")) || comment.ends_with("Defaults: these.");
                lines.push(if default { key } else { line });
            } else {
                comment.clear();
                lines.push(line);
            }
        }
        let set = lines.join("\n");
        let changed = set.lines().filter(|line| !EXAMPLE.lines().any(|plain| plain == *line)).count();
        assert!(changed > 45, "only {changed} defaults were found in the text");
        let mut with = parse(&set);
        // Said in layers as a value, and absent from the plain document: the same rule in force.
        with.policy = Layer::default();
        assert_eq!(format!("{with:?}"), format!("{:?}", parse(EXAMPLE)));
    }

    /// A console may send anything: whatever it is, there is an answer with a place in the document, and no panic.
    #[test]
    fn a_broken_document_is_answered_wherever_it_is_broken() {
        let text = all_set();
        let cuts = text.char_indices().map(|(at, _)| at).step_by(29);
        for (number, at) in cuts.enumerate() {
            let (before, behind) = text.split_at(at);
            let rest = behind.chars().skip(1).collect::<String>();
            let strange = ["", "\0", "\"", "[", "=", "é", "\u{202e}"];
            for broken in [before.to_owned(), format!("{before}{}{rest}", strange[number % strange.len()])] {
                for error in Settings::parse(&broken, Path::new("x.toml")).err().unwrap_or_default() {
                    assert!((1..=broken.matches('\n').count() + 1).contains(&error.line), "{error}");
                    assert!(error.column <= broken.len() + 1 && !error.explain().is_empty());
                }
            }
        }
    }
}
