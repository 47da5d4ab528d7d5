//! The loop: hears what happens, and does what follows from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use settings::{Ipv4, Ipv6, Network, TimeServer};

use super::clock::Clock;
use super::dhcp::{Change, Client, Lease};
use super::link::{Address, Lifetime, Link, Netlink};
use super::ndisc::{self, Heard};
use super::packet::Port;
use super::report::Report;
use super::resolv::{Resolv, endpoint};
use super::switches::{self, Part};
use super::time::Keeper;
use super::watch::{Event, Watch};

/// Everything that is known, and everybody who knows it.
pub(super) struct Daemon<C> {
    settings: Network,
    uplinks: Vec<String>,
    /// Until then the board's own interfaces are waited for; then any with a carrier will do.
    patience: Instant,
    netlink: Netlink,
    watch: Watch,
    signals: SignalFd,
    /// Other interfaces: switched on to see their carrier, and kept out of IPv6.
    others: Vec<Link>,
    uplinked: Option<Uplink>,
    heard: Heard,
    resolv: Resolv,
    keeper: Keeper<C>,
    report: Report,
}

/// The interface that was chosen.
struct Uplink {
    link: Link,
    client: Option<Client<Port>>,
    lease: Option<Lease>,
    /// Its usable addresses that were told of: the kernel tells of them again whenever a router does.
    told: Vec<IpNet>,
}

impl<C: Clock> Daemon<C> {
    /// Opens everything, and switches the interfaces on.
    pub(super) fn open(
        settings: Network,
        uplinks: Vec<String>,
        run: &Path,
        keeper: Keeper<C>,
        report: Report,
    ) -> io::Result<Self> {
        /// A driver may wait for its PHY's or its regulator's.
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let (netlink, watch) = (Netlink::open()?, Watch::open()?);
        let mut daemon = Self {
            settings,
            uplinks,
            patience: Instant::now() + PATIENCE,
            netlink,
            watch,
            signals,
            others: Vec::new(),
            uplinked: None,
            heard: Heard::default(),
            resolv: Resolv::new(run),
            keeper,
            report,
        };
        daemon.survey(Instant::now())?;
        daemon.servers(Instant::now());
        Ok(daemon)
    }

    /// Runs until SIGTERM.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.tell_waiting("waiting");
        if let Some(name) = self.settings.interface.as_ref().filter(|_| self.uplinked.is_none()) {
            self.report.status(format!("waiting for the interface {name} of the settings"));
        }
        self.report.ready();
        loop {
            let now = Instant::now();
            self.report.alive(now);
            if matches!(self.signals.read_signal(), Ok(Some(_))) {
                self.report.stopping();
                self.keeper.keep(&mut self.report);
                return Ok(());
            }
            for event in self.watch.events()? {
                self.handle(event, now)?;
            }
            self.choose(now)?;
            self.lease(now);
            if self.heard.expire(now) {
                self.servers(now);
            }
            self.keeper.step(now, &mut self.report);
            self.wait()?;
        }
    }

    /// Waits until something comes in or falls due.
    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut until = self.report.next();
        for due in [self.heard.next(), self.keeper.next()].into_iter().flatten() {
            until = until.min(due);
        }
        if self.uplinked.is_none() && self.patience > now {
            until = until.min(self.patience);
        }
        let client = self.uplinked.as_mut().filter(|uplink| uplink.link.carrier);
        let client = client.and_then(|uplink| uplink.client.as_mut());
        if let Some(delay) = client.and_then(|client| client.next(now)) {
            until = until.min(now + delay);
        }
        let client = self.uplinked.as_ref().and_then(|uplink| uplink.client.as_ref());
        let fds = [self.watch.as_fd(), self.signals.as_fd()];
        let fds = fds.into_iter().chain(client.map(|client| client.as_fd())).chain(self.keeper.fds());
        let mut fds = fds.map(readable).collect::<Vec<_>>();
        // Rounded up, so that what falls due is due.
        let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis.min(60_000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, event: Event, now: Instant) -> io::Result<()> {
        let index = self.uplinked.as_ref().map(|uplink| uplink.link.index);
        match event {
            Event::Link(link) if index == Some(link.index) => self.changed(link, now),
            Event::Link(link) => self.meet(link),
            Event::Gone(gone) if index == Some(gone) => {
                self.uplinked = None;
                self.heard.clear();
                self.servers(now);
                self.tell_waiting("gone");
            }
            Event::Gone(gone) => self.others.retain(|other| other.index != gone),
            Event::Address(address) if index == Some(address.index) => self.address(&address, now),
            Event::Servers(servers) if index == Some(servers.index) && self.settings.ipv6 == Ipv6::Auto => {
                self.heard.hear(&servers, now);
                self.servers(now);
            }
            Event::Removed(address) if index == Some(address.index) => {
                if let Some(uplink) = &mut self.uplinked {
                    uplink.told.retain(|told| *told != address.net);
                }
            }
            Event::Address(_) | Event::Removed(_) | Event::Servers(_) => {}
            Event::Missed => self.survey(now)?,
        }
        Ok(())
    }

    /// Looks at all interfaces, as at the beginning.
    fn survey(&mut self, now: Instant) -> io::Result<()> {
        let links = self.netlink.links()?;
        self.others.retain(|other| links.iter().any(|link| link.index == other.index));
        let index = self.uplinked.as_ref().map(|uplink| uplink.link.index);
        if index.is_some_and(|index| !links.iter().any(|link| link.index == index)) {
            self.handle(Event::Gone(index.unwrap_or_default()), now)?;
        }
        for link in links {
            self.handle(Event::Link(link), now)?;
        }
        self.choose(now)
    }

    /// An interface that is not chosen came, or changed.
    fn meet(&mut self, link: Link) {
        if let Some(known) = self.others.iter_mut().find(|other| other.index == link.index) {
            *known = link;
            return;
        }
        let wanted = self.settings.interface.as_ref().is_none_or(|wanted| *wanted == link.name);
        if !link.loopback && (link.mac.is_none() || !wanted) {
            return;
        }
        if !link.loopback
            && let Err(error) = switches::set(&link.name, Part::None)
        {
            self.report.status(error);
        }
        if let Err(error) = self.netlink.up(link.index) {
            self.report.status(format!("{} cannot be switched on: {error}", link.name));
        }
        if !link.loopback {
            self.others.push(link);
        }
    }

    /// Chooses the interface, if none is chosen and there is one to choose.
    fn choose(&mut self, now: Instant) -> io::Result<()> {
        if self.uplinked.is_some() {
            return Ok(());
        }
        let at = if let Some(name) = &self.settings.interface {
            self.others.iter().position(|link| link.name == *name)
        } else {
            let plugged = |link: &Link| link.carrier && (now >= self.patience || self.is_own(&link.name));
            self.others.iter().position(plugged)
        };
        let Some(at) = at else { return Ok(()) };
        let link = self.others.remove(at);
        if let Err(error) = switches::set(&link.name, self.settings.ipv6.into()) {
            self.report.status(error);
        }
        let client = match (self.settings.ipv4, link.mac) {
            (Ipv4::Dhcp, Some(mac)) => Some(Client::new(Port::open(link.index)?, mac, now)),
            _ => None,
        };
        let carrier = link.carrier;
        let (index, link) = (link.index, Link { carrier: false, ..link });
        self.uplinked = Some(Uplink { link: link.clone(), client, lease: None, told: Vec::new() });
        self.fix(index)?;
        for address in self.netlink.addresses(index)? {
            self.address(&address, now);
        }
        self.changed(Link { carrier, ..link }, now);
        Ok(())
    }

    /// Whether an interface is one that the board has of itself.
    fn is_own(&self, name: &str) -> bool {
        let is = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        };
        self.uplinks.is_empty() || self.uplinks.iter().any(is)
    }

    /// Sets the addresses that the settings give, and takes away IPv4 addresses that an earlier run of other settings
    /// left behind. One that DHCP gave stays until the server has spoken; it ends by itself.
    fn fix(&mut self, index: u32) -> io::Result<()> {
        let (mut fixed, mut gateways) = (Vec::<IpNet>::new(), Vec::<IpAddr>::new());
        if let Ipv4::Static { address, gateway } = self.settings.ipv4 {
            fixed.push(address.into());
            gateways.extend(gateway.map(IpAddr::V4));
        }
        if let Ipv6::Static { address, gateway } = self.settings.ipv6 {
            fixed.push(address.into());
            gateways.extend(gateway.map(IpAddr::V6));
        }
        for address in &fixed {
            self.netlink.add(index, *address, Lifetime::Forever)?;
        }
        if self.settings.ipv4 != Ipv4::Dhcp {
            self.clear(index, fixed.first().copied())?;
        }
        for gateway in gateways {
            if let Err(error) = self.netlink.route(index, gateway, false) {
                self.report.status(format!("no route by {gateway}: {error}"));
            }
        }
        Ok(())
    }

    /// Takes all IPv4 addresses but `keep` away.
    fn clear(&mut self, index: u32, keep: Option<IpNet>) -> io::Result<()> {
        for old in self.netlink.addresses(index)? {
            if matches!(old.net, IpNet::V4(_)) && Some(old.net) != keep {
                self.netlink.remove(index, old.net)?;
            }
        }
        Ok(())
    }

    /// The chosen interface changed: perhaps its cable was put in or pulled.
    fn changed(&mut self, link: Link, now: Instant) {
        let Some(uplink) = &mut self.uplinked else { return };
        let before = uplink.link.carrier;
        uplink.link = link;
        let (link, client) = (&uplink.link, uplink.client.as_mut());
        match (before, link.carrier) {
            (false, true) => {
                if let Some(client) = client {
                    client.restart();
                }
                // While the kernel itself still asks, there is no address to ask from, and that is fine.
                if self.settings.ipv6 == Ipv6::Auto {
                    drop(ndisc::solicit(&link.name, link.index));
                }
                self.keeper.hurry(now);
                if self.settings.ipv4 == Ipv4::Dhcp {
                    self.tell_waiting("waiting");
                }
            }
            (true, false) => {
                // What comes back may be another network.
                let lost = client.is_some_and(Client::restart);
                self.heard.clear();
                if lost {
                    self.give_up();
                }
                self.servers(now);
                self.tell_waiting("cable");
            }
            _ => {}
        }
    }

    /// An address of the chosen interface came.
    fn address(&mut self, address: &Address, now: Instant) {
        let news = |uplink: &&mut Uplink| address.usable && !uplink.told.contains(&address.net);
        let Some(uplink) = self.uplinked.as_mut().filter(news) else { return };
        let fixed = [
            matches!(self.settings.ipv4, Ipv4::Static { address: own, .. } if address.net == IpNet::V4(own)),
            matches!(self.settings.ipv6, Ipv6::Static { address: own, .. } if address.net == IpNet::V6(own)),
        ];
        let how = match address.net {
            _ if fixed.contains(&true) => "static",
            IpNet::V6(_) => "slaac",
            IpNet::V4(_) => return, // told with its lease
        };
        uplink.told.push(address.net);
        let name = &uplink.link.name;
        self.report.stage(format!("network if={name} addr={} how={how}", address.net));
        self.keeper.hurry(now);
    }

    /// Lets the DHCP client go on.
    fn lease(&mut self, now: Instant) {
        let Some(uplink) = self.uplinked.as_mut().filter(|uplink| uplink.link.carrier) else { return };
        let Some(change) = uplink.client.as_mut().and_then(|client| client.poll(now)) else { return };
        match change {
            Change::Lost => {
                self.give_up();
                self.servers(now);
                self.tell_waiting("expired");
            }
            Change::Leased(lease) => {
                let before = uplink.lease.replace(lease.clone());
                let (index, name) = (uplink.link.index, uplink.link.name.clone());
                let router = before.as_ref().and_then(|before| before.router);
                if let Err(error) = self.apply(index, &lease, router) {
                    self.report.status(format!("the lease of {} cannot be used: {error}", lease.address));
                }
                self.servers(now);
                if before.is_none_or(|before| before.address != lease.address) {
                    self.report.stage(format!("network if={name} addr={} how=dhcp", lease.address));
                    self.keeper.hurry(now);
                }
            }
        }
    }

    fn apply(&mut self, index: u32, lease: &Lease, router: Option<Ipv4Addr>) -> io::Result<()> {
        let lifetime = match lease.seconds {
            u32::MAX => Lifetime::Forever, // RFC 2131 §3.3
            seconds => Lifetime::Seconds(seconds),
        };
        self.netlink.add(index, lease.address.into(), lifetime)?;
        self.clear(index, Some(lease.address.into()))?;
        if let Some(old) = router.filter(|old| Some(*old) != lease.router) {
            self.netlink.unroute(index, old.into())?;
        }
        match lease.router {
            Some(router) => self.netlink.route(index, router.into(), true),
            None => Ok(()),
        }
    }

    /// Takes away what a lease gave.
    fn give_up(&mut self) {
        let Some(uplink) = &mut self.uplinked else { return };
        let Some(Lease { address, router, .. }) = uplink.lease.take() else { return };
        let index = uplink.link.index;
        let result = router.map_or(Ok(()), |router| self.netlink.unroute(index, router.into()));
        if let Err(error) = result.and(self.netlink.remove(index, Ipv4Net::into(address))) {
            self.report.status(format!("{address} cannot be given up: {error}"));
        }
    }

    /// Passes on whom to ask for names and for the time.
    fn servers(&mut self, now: Instant) {
        let uplink = self.uplinked.as_ref();
        let lease = uplink.and_then(|uplink| uplink.lease.as_ref());
        let mut names = self.settings.dns.clone();
        if names.is_empty() {
            names.extend(lease.iter().flat_map(|lease| &lease.dns).copied().map(IpAddr::V4));
            names.extend(self.heard.servers().into_iter().map(IpAddr::V6));
        }
        let mut times = self.settings.ntp.clone();
        if times.is_empty() {
            let told = lease.iter().flat_map(|lease| &lease.ntp).copied();
            times.extend(told.map(|server| TimeServer::Address(server.into())));
        }
        let (name, index) = uplink.map_or(("", 0), |uplink| (uplink.link.name.as_str(), uplink.link.index));
        if let Err(error) = self.resolv.write(&names, name) {
            self.report.status(format!("resolv.conf cannot be written: {error}"));
        }
        let resolvers = names.into_iter().map(|server| endpoint(server, index)).collect();
        self.keeper.servers(&times, resolvers, now);
    }

    /// There is no address, or not yet.
    fn tell_waiting(&mut self, how: &str) {
        let uplink = self.uplinked.as_ref();
        let name = uplink.map_or("none", |uplink| uplink.link.name.as_str());
        let carrier = if uplink.is_some_and(|uplink| uplink.link.carrier) { "yes" } else { "no" };
        self.report.stage(format!("network if={name} addr=none how={how} carrier={carrier}"));
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}
