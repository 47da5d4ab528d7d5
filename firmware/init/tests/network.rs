//! `init network` between real servers: dnsmasq (DHCP, router advertisements, DNS) and chrony (NTP), each test in
//! network namespaces of its own.
//!
//! Root is needed for that, real or of a user namespace. Without the right to set the clock (`CAP_SYS_TIME` is dropped
//! first): this machine's must stay as it is, and what is done with a time is tested beside `src/network/time.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail so, in their helpers too

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs the test `name` anew, in namespaces; `true` inside.
fn isolated(name: &str) -> bool {
    const INSIDE: &str = "POSTERN_NETWORK_TEST";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0") {
        eprintln!("SKIPPED {name}: needs root for network namespaces; run `cargo box test`, or this as root");
        return false;
    }
    for (program, package) in [("dnsmasq", "dnsmasq-base"), ("chronyd", "chrony"), ("ip", "iproute2")] {
        let found =
            ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|at| Path::new(at).join(program).exists());
        assert!(found, "{program} is missing: apt-get install --no-install-recommends {package}");
    }
    let own = std::env::current_exe().unwrap();
    let status = Command::new("setpriv")
        .args(["--inh-caps=-sys_time", "--bounding-set=-sys_time", "--"])
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(own)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("setpriv and unshare of util-linux");
    assert!(status.success(), "{name}: {status}");
    false
}

/// Kills its process at the end.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Two machines with a cable between them: here the servers, `srv`; there the box, `eth0`.
struct Bench {
    folder: tempfile::TempDir,
    reports: UnixDatagram,
    heard: Vec<String>,
    servers: Vec<Process>,
    init: Option<Process>,
    there: Process,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reports = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        reports.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let there = Process(Command::new("unshare").args(["--net", "--", "sleep", "600"]).spawn().unwrap());
        fs::create_dir(folder.path().join("run")).unwrap();
        let bench = Self { folder, reports, heard: Vec::new(), servers: Vec::new(), init: None, there };
        // Until the namespace is another one than ours.
        let ours = fs::read_link("/proc/self/ns/net").unwrap();
        while fs::read_link(format!("/proc/{}/ns/net", bench.pid())).is_ok_and(|theirs| theirs == ours) {
            sleep(Duration::from_millis(5));
        }
        run("ip link set lo up");
        bench.cable("srv", "eth0");
        run(
            "ip addr add 192.0.2.1/24 dev srv; ip -6 addr add 2001:db8::1/64 dev srv nodad; ip link set srv up",
        );
        bench
    }

    fn pid(&self) -> u32 {
        self.there.0.id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cable(&self, here: &str, there: &str) {
        run(&format!("ip link add {here} type veth peer name {there} netns {}", self.pid()));
    }

    /// Runs a command on the box.
    fn there(&self, line: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net -- {line}", self.pid()))
    }

    fn dnsmasq(&mut self) {
        let leases = self.path("leases");
        let configuration = format!(
            "interface=srv\nbind-interfaces\nuser=root\ngroup=root\nno-resolv\nno-hosts\nlog-dhcp\npid-file\n\
             dhcp-leasefile={}\ndhcp-range=192.0.2.100,192.0.2.110,2m\n\
             dhcp-option=option:router,192.0.2.1,192.0.2.2\ndhcp-option=option:ntp-server,192.0.2.1\n\
             dhcp-option=option:T1,5\ndhcp-option=option:T2,90\n\
             enable-ra\ndhcp-range=2001:db8::,ra-only,64,10m\ndhcp-option=option6:dns-server,[2001:db8::1]\n\
             cname=ntp.example.net,time.example.net\nhost-record=time.example.net,192.0.2.1\n",
            leases.display()
        );
        fs::write(self.path("dnsmasq.conf"), configuration).unwrap();
        self.server(&["dnsmasq", "-k", "--log-facility=-", "-C"], "dnsmasq");
    }

    fn chrony(&mut self) {
        let (pid, drift) = (self.path("chrony.pid"), self.path("drift"));
        let configuration = format!(
            "local stratum 8\nallow all\ncmdport 0\npidfile {}\ndriftfile {}\n",
            pid.display(),
            drift.display()
        );
        fs::write(self.path("chronyd.conf"), configuration).unwrap();
        self.server(&["chronyd", "-d", "-x", "-u", "root", "-f"], "chronyd");
    }

    fn server(&mut self, command: &[&str], name: &str) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg(self.path(&format!("{name}.conf")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.servers.push(Process(child));
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts `init network` on the box, with this section of settings.
    fn start(&mut self, section: &str) {
        self.start_with(section, &[]);
    }

    fn start_with(&mut self, section: &str, arguments: &[&str]) {
        fs::write(self.path("settings.toml"), format!("[network]\n{section}\n")).unwrap();
        fs::write(self.path("release.toml"), "version = \"1\"\ntime = 1700000000\n").unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg("--")
            .arg(env!("CARGO_BIN_EXE_init"))
            .arg("network")
            .args(["--settings".as_ref(), self.path("settings.toml").as_os_str()])
            .args(["--release".as_ref(), self.path("release.toml").as_os_str()])
            .args(["--run".as_ref(), self.path("run").as_os_str()])
            .args(["--clock".as_ref(), self.path("clock").as_os_str()])
            .args(arguments)
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env("WATCHDOG_USEC", "3000000")
            .spawn()
            .unwrap();
        self.init = Some(Process(child));
    }

    /// Waits until `init network` has reported a line with `text` in it, and returns it. Each line is found once; the
    /// order of lines about different things is nobody's promise.
    fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut line = [0; 1024];
        while Instant::now() < deadline {
            if let Some(at) = self.heard.iter().position(|line| line.contains(text)) {
                return self.heard.remove(at);
            }
            if let Ok(length) = self.reports.recv(&mut line) {
                self.heard.push(String::from_utf8_lossy(&line[..length]).into_owned());
            }
        }
        panic!("no {text:?}; heard: {:#?}\n{}{}", self.heard, self.log("dnsmasq"), self.log("chronyd"));
    }

    /// Waits until `happens`.
    fn eventually(&self, what: &str, happens: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !happens(self) {
            assert!(Instant::now() < deadline, "{what}: not in 30 s\n{}", self.log("dnsmasq"));
            sleep(Duration::from_millis(50));
        }
    }

    fn resolv(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("run/resolv.conf")).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::to_owned).collect()
    }
}

#[test]
fn a_lease_a_prefix_name_servers_and_the_time_come_by_themselves() {
    if !isolated("a_lease_a_prefix_name_servers_and_the_time_come_by_themselves") {
        return;
    }
    let mut bench = Bench::new();
    bench.dnsmasq();
    bench.chrony();
    bench.start("");
    bench.until("X_STAGE=time source=rtc");
    bench.until("READY=1");
    let stage = bench.until("how=dhcp");
    let address = stage.split("addr=").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert!(stage.starts_with("X_STAGE=network if=eth0 addr=192.0.2.1") && address.len() == 11, "{stage}");
    let said = bench.until("how=slaac");
    assert!(said.contains("addr=2001:db8::") && said.contains("/64 "), "{said}");
    // The clock itself may not be touched here, and that is said; the answer came by DHCP's option 42 from chrony.
    bench.until("192.0.2.1 is 0 s off, and the clock cannot be set");
    bench.eventually("the router's name server", |bench| bench.resolv() == ["192.0.2.1", "2001:db8::1"]);

    let shown = bench.there("ip -4 addr show dev eth0");
    assert!(shown.contains(&format!("inet {address}/24 brd 192.0.2.255 scope global dynamic")), "{shown}");
    // Were this process gone, the address would end with its lease.
    let left = shown.split("valid_lft ").nth(1).unwrap().split("sec").next().unwrap().parse::<u32>().unwrap();
    assert!((60..=120).contains(&left), "{shown}");
    let routes = bench.there("ip -4 route");
    assert!(routes.contains("default via 192.0.2.1 dev eth0 proto dhcp"), "{routes}");
    // The router's next word may come after its first prefix.
    bench.eventually("the router's route", |bench| bench.there("ip -6 route").contains("default via fe80::"));

    // T1 is five seconds: the lease is renewed, and nothing changes.
    let discovered = bench.log("dnsmasq").matches("DHCPDISCOVER(srv)").count();
    bench.eventually("a renewal", |bench| bench.log("dnsmasq").matches("DHCPACK(srv)").count() >= 3);
    assert_eq!(bench.log("dnsmasq").matches("DHCPDISCOVER(srv)").count(), discovered);
    assert!(bench.there("ip -4 addr show dev eth0").contains(&address));
    bench.until("WATCHDOG=1");
    bench.until("WATCHDOG=1");
    let told = bench.heard.iter().filter(|line| line.contains("how=dhcp")).count();
    assert_eq!(told, 0, "a renewal is no news: {:?}", bench.heard);
}

#[test]
fn without_a_server_it_is_ready_and_asks_until_there_is_one() {
    if !isolated("without_a_server_it_is_ready_and_asks_until_there_is_one") {
        return;
    }
    let mut bench = Bench::new();
    let begun = Instant::now();
    bench.start("ipv6 = \"off\"");
    bench.until("READY=1");
    assert!(begun.elapsed() < Duration::from_secs(2));
    sleep(Duration::from_secs(6));
    assert_eq!(bench.there("ip -4 addr show dev eth0"), "");
    assert_eq!(bench.there("ip -6 addr show dev eth0"), "", "IPv6 is off");
    bench.dnsmasq();
    bench.until("how=dhcp");

    // The cable is pulled: everything that came by it goes, and comes again.
    run("ip link set srv down");
    bench.until("if=eth0 addr=none how=cable carrier=no");
    assert_eq!(bench.there("ip -4 addr show dev eth0").matches("inet ").count(), 0);
    assert_eq!(bench.there("ip -4 route"), "");
    assert!(bench.resolv().is_empty());
    run("ip link set srv up");
    bench.until("how=dhcp");
    assert_eq!(bench.resolv(), ["192.0.2.1"]);

    // A server that went leaves the lease as it is; one that is back renews it.
    bench.servers.clear();
    sleep(Duration::from_secs(8));
    assert_eq!(bench.there("ip -4 addr show dev eth0").matches("inet ").count(), 1);

    let init = bench.init.as_mut().unwrap();
    run(&format!("kill -TERM {}", init.0.id()));
    assert!(init.0.wait().unwrap().success());
    bench.until("STOPPING=1");
}

#[test]
fn addresses_and_servers_are_those_of_the_settings() {
    if !isolated("addresses_and_servers_are_those_of_the_settings") {
        return;
    }
    let mut bench = Bench::new();
    bench.dnsmasq();
    bench.chrony();
    bench.there("ip addr add 198.51.100.7/24 dev eth0"); // left behind by other settings
    bench.start(
        "ipv4 = { address = \"192.0.2.5/24\", gateway = \"192.0.2.1\" }\n\
         ipv6 = { address = \"2001:db8::5/64\", gateway = \"fe80::1\" }\n\
         dns = [\"192.0.2.1\"]\nntp = [\"ntp.example.net\"]",
    );
    bench.until("READY=1");
    bench.until("addr=192.0.2.5/24 how=static");
    bench.until("addr=2001:db8::5/64 how=static");
    // Found by its name, through an alias.
    bench.until("192.0.2.1 is 0 s off");
    let shown = bench.there("ip addr show dev eth0");
    assert_eq!(shown.matches("inet ").count(), 1, "{shown}");
    assert_eq!(shown.matches("scope global").count(), 2, "routers are not listened to: {shown}");
    assert!(bench.there("ip -4 route").contains("default via 192.0.2.1 dev eth0 proto static"));
    assert!(bench.there("ip -6 route").contains("default via fe80::1 dev eth0 proto static"));
    assert_eq!(bench.resolv(), ["192.0.2.1"]);
    assert!(!bench.log("dnsmasq").contains("DHCPDISCOVER"));
}

#[test]
fn the_interface_with_a_cable_is_taken() {
    if !isolated("the_interface_with_a_cable_is_taken") {
        return;
    }
    let mut bench = Bench::new();
    bench.cable("unplugged", "dead0"); // its other end stays switched off
    bench.there("ip link set eth0 name wan0");
    bench.dnsmasq();
    bench.start("");
    bench.until("READY=1");
    bench.until("X_STAGE=network if=wan0 addr=192.0.2.1");
    let shown = bench.there("ip addr show dev dead0");
    assert!(shown.contains("NO-CARRIER") && !shown.contains("inet"), "{shown}");

    // It is taken away, as a USB adapter may be, and another one comes.
    run("ip link del srv");
    bench.until("if=none addr=none how=gone");
    bench.cable("srv", "lan0");
    run("ip addr add 192.0.2.1/24 dev srv; ip link set srv up");
    bench.servers.clear();
    bench.dnsmasq();
    bench.until("X_STAGE=network if=lan0 addr=192.0.2.1");
}

/// Both have a cable; the board's descriptor says which is its own, and the settings may say otherwise.
#[test]
fn the_boards_own_interface_comes_first_and_the_settings_before_it() {
    if !isolated("the_boards_own_interface_comes_first_and_the_settings_before_it") {
        return;
    }
    let mut bench = Bench::new();
    bench.cable("other", "lan0");
    run("ip link set other up");
    bench.dnsmasq();
    bench.start_with("", &["--uplink", "wan0", "--uplink", "la*"]);
    bench.until("READY=1");
    bench.until("X_STAGE=network if=lan0 addr=none how=waiting carrier=yes");
    bench.init = None;
    bench.start_with("interface = \"eth0\"", &["--uplink", "la*"]);
    bench.until("X_STAGE=network if=eth0 addr=192.0.2.1");
}
