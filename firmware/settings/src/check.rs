//! What cannot hold together, and what cannot be reached: one place for both, run on settings whose every value is
//! well-formed by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mail::session::Protocol;
use policy::{Layer, Mode};
use toml::Spanned;
use toml::de::DeTable;

use crate::backend::{BackendTls, LoginForm, Service};
use crate::error::Kind;
use crate::reader::{Mistake, dotted, locate, nearest};
use crate::settings::Settings;
use crate::{Syslog, Via};

/// Mistakes so far, and the document to find their places in.
struct Findings<'a> {
    document: &'a Spanned<DeTable<'a>>,
    found: Vec<Mistake>,
}

impl Findings<'_> {
    fn add(&mut self, kind: Kind, keys: &[&str], what: impl Into<String>, mend: impl Into<String>) {
        let span = locate(self.document, keys);
        self.found.push(Mistake { span, key: dotted(keys), kind, what: what.into(), mend: mend.into() });
    }

    fn contradiction(&mut self, keys: &[&str], what: impl Into<String>, mend: impl Into<String>) {
        self.add(Kind::Contradiction, keys, what, mend);
    }
}

/// Values that cannot both hold.
pub(crate) fn contradictions(settings: &Settings, document: &Spanned<DeTable<'_>>) -> Vec<Mistake> {
    let mut findings = Findings { document, found: Vec::new() };
    listeners(settings, &mut findings);
    certificates(settings, &mut findings);
    backends(settings, &mut findings);
    routes(settings, &mut findings);
    local_parts(settings, &mut findings);
    domains(settings, &mut findings);
    rules(settings, &mut findings);
    limits(settings, &mut findings);
    alerts(settings, &mut findings);
    findings.found
}

fn listeners(settings: &Settings, findings: &mut Findings<'_>) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    let mut claim = |keys: &[&str], address: SocketAddr, findings: &mut Findings<'_>| {
        if let Some((by, _)) = taken.iter().find(|(_, other)| overlap(*other, address)) {
            let what = format!("{address} is already taken by {by}");
            findings.contradiction(keys, what, "give each listener an address and port of its own");
        }
        taken.push((dotted(keys), address));
    };
    for (key, protocol, _, addresses) in settings.listen.lists() {
        for (at, address) in addresses.iter().enumerate() {
            claim(&["listen", key, &format!("[{at}]")], *address, findings);
        }
        let served = settings.backends.values().any(|backend| backend.service(protocol).is_some());
        if !addresses.is_empty() && !served && !settings.backends.is_empty() {
            let name = protocol.name();
            let what = format!("{key} is on, and no backend has a server for {name}");
            let mend = format!("switch it off with {key} = [] in [listen], or add [backends.NAME.{name}]");
            findings.contradiction(&["listen", key], what, mend);
        }
    }
    if let Some(listen) = settings.metrics.listen {
        claim(&["metrics", "listen"], listen, findings);
    }
    if settings.listen.all().next().is_none() {
        findings.contradiction(
            &["listen"],
            "every listener is off",
            "switch one on, such as imaps = [\"[::]:993\"]",
        );
    }
    for (at, network) in settings.listen.proxy_protocol.iter().enumerate() {
        if network.prefix_len() == 0 {
            let what = format!("{network} lets everybody say which address they have");
            let mend = "list only the load balancers";
            findings.contradiction(&["listen", "proxy-protocol", "from", &format!("[{at}]")], what, mend);
        }
    }
}

/// Whether two listeners cannot both be opened; `[::]` takes IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |wide: IpAddr, other: IpAddr| match wide {
        IpAddr::V4(_) => wide.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(_) => wide.is_unspecified(),
    };
    a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn certificates(settings: &Settings, findings: &mut Findings<'_>) {
    let keys = ["tls", "certificates"];
    if settings.tls.certificates.is_empty() {
        let mend = "add one: certificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]";
        findings.contradiction(&keys, "without a certificate no listener can speak TLS", mend);
    }
    for (at, files) in settings.tls.certificates.iter().enumerate() {
        if settings.tls.certificates.iter().take(at).any(|other| other.chain == files.chain) {
            let keys = ["tls", "certificates", &format!("[{at}]"), "chain"];
            findings.contradiction(&keys, "this certificate is listed twice", "remove one");
        }
    }
}

fn backends(settings: &Settings, findings: &mut Findings<'_>) {
    if settings.backends.is_empty() {
        let mend = "add [backends.main.imap] with address = \"imap.internal.example:993\"";
        findings.add(Kind::Missing, &["backends"], "there is no backend, so nobody could log in", mend);
    }
    for (name, backend) in &settings.backends {
        let services = Protocol::ALL.map(|protocol| (protocol.name(), backend.service(protocol)));
        if services.iter().all(|(_, service)| service.is_none()) {
            let mend = format!("add [backends.{name}.imap], .pop3 or .submission with its address");
            findings.contradiction(&["backends", name], "this backend has no server", mend);
        }
        for (protocol, service) in services {
            if let Some(service) = service {
                clear_path(&["backends", name, protocol], service, findings);
            }
        }
    }
}

fn clear_path(keys: &[&str; 3], service: &Service, findings: &mut Findings<'_>) {
    let [a, b, c] = *keys;
    if service.tls != BackendTls::None {
        return;
    }
    for (key, set) in [("ca", service.ca.is_some()), ("name", service.name.is_some())] {
        if set {
            let mend = format!("set tls = \"implicit\" or \"starttls\", or remove {key}");
            findings.contradiction(
                &[a, b, c, key],
                format!("{key} says nothing where tls is \"none\""),
                mend,
            );
        }
    }
    if !service.address.is_near() {
        let what = format!("passwords would travel to {} in clear", service.address);
        let mend =
            "set tls = \"implicit\" or \"starttls\"; \"none\" is for loopback and private IP addresses";
        findings.contradiction(&[a, b, c, "tls"], what, mend);
    }
}

fn routes(settings: &Settings, findings: &mut Findings<'_>) {
    let names = settings.backends.keys().map(String::as_str).collect::<Vec<_>>();
    let known = |keys: &[&str], backend: &str, findings: &mut Findings<'_>| {
        if settings.backends.contains_key(backend) {
            return;
        }
        let list = names.join(", ");
        let mend = nearest(backend, &names).map_or_else(
            || format!("name one of: {list}"),
            |near| format!("did you mean {near:?}? One of: {list}"),
        );
        findings.contradiction(keys, format!("there is no backend {backend:?}"), mend);
    };
    if let Some(backend) = &settings.routes.default {
        known(&["routes", "default"], backend, findings);
    }
    for (domain, backend) in &settings.routes.domains {
        known(&["routes", "domains", domain.as_str()], backend, findings);
    }
    for (account, backend) in &settings.routes.accounts {
        let at_account = settings.accounts.get(account).is_some_and(|account| account.backend.is_some());
        if at_account {
            known(&["accounts", account.as_str(), "backend"], backend, findings);
        } else {
            known(&["routes", "accounts", account.as_str()], backend, findings);
        }
    }
    if let Some(mail) = &settings.alerts.mail
        && let Via::Backend(backend) = &mail.via
    {
        known(&["alerts", "via"], backend, findings);
        if settings.backends.get(backend).is_some_and(|backend| backend.submission.is_none()) {
            let what = format!("backend {backend:?} has no submission server");
            findings.contradiction(
                &["alerts", "via"],
                what,
                "name another, or an SMTP server as \"host:port\"",
            );
        }
    }
    let routes = &settings.routes;
    if routes.default.is_none() && routes.domains.is_empty() && routes.accounts.is_empty() && names.len() > 1
    {
        let mend = format!("add default = {:?} to [routes]", names.first().unwrap_or(&"main"));
        findings.add(
            Kind::Missing,
            &["routes"],
            "several backends, and no route says which holds a mailbox",
            mend,
        );
    }
    for account in settings.accounts.keys() {
        if settings.route(account).is_none() && !settings.backends.is_empty() {
            let mend = "add its domain to [domains] or [routes.domains], or give the account a backend";
            findings.contradiction(
                &["accounts", account.as_str()],
                "no route leads from this account to a backend",
                mend,
            );
        }
    }
}

/// A backend that hears only the local part must hold a single domain: two mailboxes of one name would be one.
fn local_parts(settings: &Settings, findings: &mut Findings<'_>) {
    let known =
        settings.domains.keys().chain(settings.routes.domains.keys()).chain(&settings.host.default_domain);
    let known = known.filter(|domain| !settings.aliases.contains_key(domain)).collect::<BTreeSet<_>>();
    for (name, _) in settings.backends.iter().filter(|(_, b)| b.login_form == LoginForm::LocalPart) {
        let is_default = settings.routes.default.as_deref() == Some(name);
        let here = known.iter().filter(|domain| match settings.routes.domains.get(**domain) {
            Some(backend) => backend == name,
            None => is_default,
        });
        let here = here.map(|domain| domain.as_str()).collect::<Vec<_>>();
        let keys = ["backends", name, "login-form"];
        if here.len() > 1 {
            let what = format!("this backend hears \"alice\" alone for alice at each of {}", here.join(", "));
            findings.contradiction(
                &keys,
                what,
                "set login-form = \"address\", or give each domain its own backend",
            );
        } else if is_default && settings.routes.other_domains && !known.is_empty() {
            let what = "with other-domains, alice of any domain would be this backend's \"alice\"";
            findings.contradiction(
                &keys,
                what,
                "set login-form = \"address\", or other-domains = false in [routes]",
            );
        }
    }
}

fn domains(settings: &Settings, findings: &mut Findings<'_>) {
    let mut seen = BTreeMap::new();
    for (domain, rules) in &settings.domains {
        for (at, alias) in rules.aliases.iter().enumerate() {
            let keys = ["domains", domain.as_str(), "aliases", &format!("[{at}]")];
            if settings.domains.contains_key(alias) {
                let what = format!("{} is a domain of its own here", alias.as_str());
                findings.contradiction(&keys, what, "remove its section, or the alias");
            }
            if settings.routes.domains.contains_key(alias) {
                let what = format!(
                    "{} has a route of its own, and an alias goes where its domain goes",
                    alias.as_str()
                );
                findings.contradiction(&keys, what, "remove the route, or the alias");
            }
            if let Some(other) = seen.insert(alias, domain) {
                let what = format!("{} is already an alias of {}", alias.as_str(), other.as_str());
                findings.contradiction(&keys, what, "keep one of them");
            }
        }
        if rules.probe_refused_passwords && settings.alerts.mail.is_none() {
            let keys = ["domains", domain.as_str(), "probe-refused-passwords"];
            let mend = "set from and via in [alerts], or remove this";
            findings.contradiction(
                &keys,
                "the probe is only there to tell the owner, and alert mail is off",
                mend,
            );
        }
    }
    if let Some(domain) = &settings.host.default_domain
        && settings.aliases.contains_key(domain)
    {
        let mend = "name the domain that it is an alias of";
        findings.contradiction(&["box", "default-domain"], "this is an alias", mend);
    }
}

fn rules(settings: &Settings, findings: &mut Findings<'_>) {
    layer(settings, &["policy"], &settings.policy, &[], findings);
    for (domain, rules) in &settings.domains {
        let above = [("[policy]", &settings.policy)];
        layer(settings, &["domains", domain.as_str(), "policy"], &rules.policy, &above, findings);
    }
    for (account, own) in &settings.accounts {
        let mut above = vec![("[policy]", &settings.policy)];
        if let Some(domain) = settings.domain_of(account) {
            above.push(("its domain", &domain.policy));
        }
        layer(settings, &["accounts", account.as_str(), "policy"], &own.policy, &above, findings);
    }
}

fn layer(
    settings: &Settings,
    keys: &[&str],
    layer: &Layer,
    above: &[(&str, &Layer)],
    findings: &mut Findings<'_>,
) {
    let under = |key| [keys, &[key]].concat();
    if layer.countries.is_some() && settings.geo.country.is_none() {
        let what = "without a country table every login would be refused here";
        findings.contradiction(&under("countries"), what, "set country in [geo], or remove countries");
    }
    if layer.require_clientid == Some(true) && layer.weak_identity == Some(true) {
        let what = "weak identities cannot count where a CLIENTID is required";
        findings.contradiction(&under("weak-identity"), what, "remove one of the two");
    }
    let loose = "a lower layer may tighten, never loosen";
    for (place, upper) in above {
        if let (Some(mine), Some(theirs)) = (layer.mode, upper.mode)
            && strictness(mine) < strictness(theirs)
        {
            let what = format!("{} here is looser than {} in {place}: {loose}", word(mine), word(theirs));
            let mend = "remove this mode, or loosen the layer above and tighten the others";
            findings.contradiction(&under("mode"), what, mend);
        }
        if layer.require_clientid == Some(false) && upper.require_clientid == Some(true) {
            let what = format!("a CLIENTID is required in {place}: {loose}");
            findings.contradiction(&under("require-clientid"), what, "remove this");
        }
        if layer.weak_identity == Some(true) && upper.weak_identity == Some(false) {
            let what = format!("weak identities do not count in {place}: {loose}");
            findings.contradiction(&under("weak-identity"), what, "remove this");
        }
        if let (Some(mine), Some(theirs)) = (layer.max_devices, upper.max_devices)
            && mine > theirs
        {
            let what = format!("{mine} is more than {theirs} in {place}: {loose}");
            findings.contradiction(&under("max-devices"), what, "remove this, or lower it");
        }
    }
}

fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Observe => 0,
        Mode::Learn { .. } => 1,
        Mode::Lock => 2,
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Learn { .. } => "learn",
        Mode::Lock => "lock",
    }
}

fn limits(settings: &Settings, findings: &mut Findings<'_>) {
    let (abuse, limits) = (&settings.abuse, &settings.limits);
    if abuse.failure_deadline > abuse.failure_deadline_max {
        let what = "the deadline begins above its own maximum";
        findings.contradiction(
            &["abuse", "failure-deadline-max"],
            what,
            "raise it to failure-deadline or more",
        );
    }
    if limits.handshake_timeout > limits.login_timeout {
        let what = "the handshake may take longer than everything up to login";
        findings.contradiction(&["limits", "handshake-timeout"], what, "lower it, or raise login-timeout");
    }
    if abuse.failure_deadline_max >= limits.login_timeout {
        let what = "a failed login would be cut off before its answer";
        findings.contradiction(
            &["limits", "login-timeout"],
            what,
            "raise it above failure-deadline-max of [abuse]",
        );
    }
    if limits.connections_per_network > limits.connections {
        let what = format!("one network may not have more than all together, {}", limits.connections);
        findings.contradiction(
            &["limits", "connections-per-network"],
            what,
            "lower it, or raise connections",
        );
    }
    // sun_path of sockaddr_un holds 108 octets with the closing NUL.
    if settings.control.socket.as_os_str().len() > 107 {
        findings.contradiction(
            &["control", "socket"],
            "a socket's path has at most 107 octets",
            "choose a shorter one",
        );
    }
}

fn alerts(settings: &Settings, findings: &mut Findings<'_>) {
    let alerts = &settings.alerts;
    if let Some(mail) = &alerts.mail
        && let Via::Server { address, tls, ca } = &mail.via
    {
        if *tls == BackendTls::None && !address.is_near() {
            let what = format!("alerts would travel to {address} in clear");
            findings.contradiction(
                &["alerts", "via-tls"],
                what,
                "set via-tls = \"starttls\" or \"implicit\"",
            );
        }
        if *tls == BackendTls::None && ca.is_some() {
            let mend = "set via-tls = \"starttls\" or \"implicit\", or remove via-ca";
            findings.contradiction(
                &["alerts", "via-ca"],
                "via-ca says nothing where via-tls is \"none\"",
                mend,
            );
        }
    }
    if alerts.mail.is_none() {
        let mend = "set from and via in [alerts], or remove this";
        if alerts.operator.mail.is_some() {
            let keys = ["alerts", "operator", "mail"];
            findings.contradiction(&keys, "no mail can be sent without from and via", mend);
        }
        for (account, _) in settings.accounts.iter().filter(|(_, account)| account.alert_to.is_some()) {
            let keys = ["accounts", account.as_str(), "alert-to"];
            findings.contradiction(&keys, "no mail can be sent without from and via", mend);
        }
    }
    if settings.geo.attribution.is_some() && settings.geo.country.is_none() {
        let mend = "set country, or remove attribution";
        findings.contradiction(&["geo", "attribution"], "there is no country table to attribute", mend);
    }
}

/// Files and folders that cannot be used.
pub(crate) fn unreachable(settings: &Settings, document: &Spanned<DeTable<'_>>) -> Vec<Mistake> {
    let mut findings = Findings { document, found: Vec::new() };
    let mut tell = |keys: &[&str], problem: Option<(String, String)>| {
        if let Some((what, mend)) = problem {
            findings.add(Kind::Unreachable, keys, what, mend);
        }
    };
    tell(&["box", "data"], folder(&settings.host.data));
    for (at, files) in settings.tls.certificates.iter().enumerate() {
        let at = format!("[{at}]");
        tell(&["tls", "certificates", &at, "chain"], pem(&files.chain, "CERTIFICATE"));
        tell(&["tls", "certificates", &at, "key"], pem(&files.key, "PRIVATE KEY"));
    }
    for (name, backend) in &settings.backends {
        for protocol in Protocol::ALL {
            if let Some(ca) = backend.service(protocol).and_then(|service| service.ca.as_deref()) {
                tell(&["backends", name, protocol.name(), "ca"], pem(ca, "CERTIFICATE"));
            }
        }
    }
    if let Some(mail) = &settings.alerts.mail
        && let Via::Server { ca: Some(ca), .. } = &mail.via
    {
        tell(&["alerts", "via-ca"], pem(ca, "CERTIFICATE"));
    }
    if let Some(Syslog::Unix(path)) = &settings.alerts.operator.syslog {
        tell(
            &["alerts", "operator", "syslog"],
            fs::metadata(path).err().map(|error| missing("socket", path, &error)),
        );
    }
    if let Some(country) = &settings.geo.country {
        tell(&["geo", "country"], content(country).err());
    }
    if let Some(parent) = settings.control.socket.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        tell(&["control", "socket"], folder(parent));
    }
    findings.found
}

type Problem = (String, String);

fn missing(sort: &str, path: &Path, error: &std::io::Error) -> Problem {
    let mend = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "let the user that runs this read it",
        _ => "put it there, or correct the path",
    };
    (format!("the {sort} {} cannot be reached: {error}", path.display()), mend.to_owned())
}

fn folder(path: &Path) -> Option<Problem> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some((format!("{} is not a folder", path.display()), "name a folder".into())),
        Err(error) => {
            let (what, _) = missing("folder", path, &error);
            Some((what, format!("create it: mkdir -p {}", path.display())))
        }
    }
}

/// The file's content, up to what any certificate bundle or country table has in front.
fn content(path: &Path) -> Result<String, Problem> {
    let file = fs::File::open(path).map_err(|error| missing("file", path, &error))?;
    let mut start = Vec::new();
    match file.take(1 << 20).read_to_end(&mut start) {
        Ok(0) => Err((format!("the file {} is empty", path.display()), "put its content there".into())),
        Ok(_) => Ok(String::from_utf8_lossy(&start).into_owned()),
        Err(error) => Err(missing("file", path, &error)),
    }
}

fn pem(path: &Path, label: &str) -> Option<Problem> {
    let text = match content(path) {
        Ok(text) => text,
        Err(problem) => return Some(problem),
    };
    // "RSA PRIVATE KEY" and "EC PRIVATE KEY" are the older forms; a passphrase cannot be asked for.
    let end = format!("{label}-----");
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&end);
    if text.lines().any(|line| begins(line) && !line.contains("ENCRYPTED")) {
        return None;
    }
    let encrypted = text.contains("ENCRYPTED");
    let what = format!("the file {} holds no PEM block \"{label}\"", path.display());
    let mend = if encrypted {
        "store the key without a passphrase, readable by Postern alone"
    } else {
        "name a PEM file"
    };
    Some((what, mend.to_owned()))
}
