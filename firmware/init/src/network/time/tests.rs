use std::cell::RefCell;
use std::net::{Ipv4Addr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::thread;
use std::time::SystemTime;

use super::*;

const YEAR: i64 = 31_557_600;
const SECOND: i64 = 1_000_000;

/// The machine's clock, wrong by `shift` microseconds, which alone is set.
#[derive(Clone, Debug, Default)]
struct TestClock(Rc<RefCell<Set>>);

#[derive(Debug, Default)]
struct Set {
    shift: i64,
    steps: u32,
    slews: u32,
}

impl TestClock {
    fn wrong_by(seconds: i64) -> Self {
        let clock = Self::default();
        clock.0.borrow_mut().shift = seconds * SECOND;
        clock
    }

    /// How wrong it is, in seconds.
    fn error(&self) -> f64 {
        Duration::from_micros(self.0.borrow().shift.unsigned_abs()).as_secs_f64()
    }

    fn set(&self) -> (u32, u32) {
        (self.0.borrow().steps, self.0.borrow().slews)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        let now = i64::try_from(today().as_micros()).unwrap();
        Duration::from_micros(u64::try_from(now + self.0.borrow().shift).unwrap_or(0))
    }

    fn step(&mut self, offset: i64) -> io::Result<()> {
        let mut set = self.0.borrow_mut();
        (set.shift, set.steps) = (set.shift + offset, set.steps + 1);
        Ok(())
    }

    fn slew(&mut self, offset: i64, _: Duration) -> io::Result<()> {
        assert!(offset.abs() <= SLEW);
        let mut set = self.0.borrow_mut();
        (set.shift, set.slews) = (set.shift + offset, set.slews + 1);
        Ok(())
    }
}

fn today() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// A month ago.
fn release() -> u64 {
    today().as_secs() - 30 * 86_400
}

/// A time server of this machine, 127.0.0.`host`, that can err and lie.
struct Server {
    port: u16,
    shift: Arc<AtomicI64>,
    stratum: Arc<AtomicU32>,
    forge: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Server {
    fn start(host: u8, port: u16) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), port)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = Self {
            port,
            shift: Arc::default(),
            stratum: Arc::new(AtomicU32::new(2)),
            forge: Arc::default(),
            asked: Arc::default(),
        };
        let (shift, stratum, forge, asked) =
            (server.shift.clone(), server.stratum.clone(), server.forge.clone(), server.asked.clone());
        thread::spawn(move || {
            let mut question = [0; 48];
            while let Ok((48, from)) = socket.recv_from(&mut question) {
                asked.fetch_add(1, Ordering::SeqCst);
                assert_eq!(question[0], 0x23, "version 4, client");
                let micros = i64::try_from(today().as_micros()).unwrap() + shift.load(Ordering::SeqCst);
                let stamp = stamp(micros);
                let mut answer = [0; 48];
                answer[0] = 0x24;
                answer[1] = u8::try_from(stratum.load(Ordering::SeqCst)).unwrap();
                if answer[1] == 0 {
                    answer[12..16].copy_from_slice(b"DENY");
                }
                answer[16..24].copy_from_slice(&stamp);
                answer[32..40].copy_from_slice(&stamp);
                answer[40..48].copy_from_slice(&stamp);
                if forge.load(Ordering::SeqCst) {
                    // As one would who does not see the question: a wrong origin, too short, nothing at all.
                    let mut forged = answer;
                    forged[40] ^= 1;
                    for broken in [&forged[..], &forged[..47], &[]] {
                        socket.send_to(broken, from).unwrap();
                    }
                }
                answer[24..32].copy_from_slice(&question[40..48]);
                socket.send_to(&answer, from).unwrap();
            }
        });
        server
    }

    fn lie(&self, seconds: i64) {
        self.shift.store(seconds * SECOND, Ordering::SeqCst);
    }
}

/// RFC 5905 §6: seconds since 1900 and their fraction.
fn stamp(micros: i64) -> [u8; 8] {
    let since = u64::try_from(micros + 2_208_988_800 * SECOND).unwrap();
    let (seconds, rest) = (since / 1_000_000, since % 1_000_000);
    ((seconds << 32) | ((rest << 32) / 1_000_000)).to_be_bytes()
}

struct Bench {
    keeper: Keeper<TestClock>,
    report: Report,
    now: Instant,
}

impl Bench {
    fn new(clock: &TestClock, port: u16, hosts: &[u8]) -> Self {
        Self::with(clock, port, hosts, None)
    }

    fn with(clock: &TestClock, port: u16, hosts: &[u8], saved: Option<PathBuf>) -> Self {
        let now = Instant::now();
        let mut report = Report::open(now);
        let mut keeper = Keeper::start(clock.clone(), release(), saved, &mut report);
        keeper.port = port;
        let address = |host: &u8| TimeServer::Address(Ipv4Addr::new(127, 0, 0, *host).into());
        keeper.servers(&hosts.iter().map(address).collect::<Vec<_>>(), Vec::new(), now);
        Self { keeper, report, now }
    }

    /// Asks everybody once, and acts.
    fn round(&mut self) {
        self.now = self.keeper.next().unwrap().max(self.now);
        loop {
            self.keeper.step(self.now, &mut self.report);
            if !self.keeper.asking {
                return;
            }
            thread::sleep(Duration::from_millis(1));
            self.now += Duration::from_millis(1);
        }
    }
}

#[test]
fn the_clock_never_starts_before_the_release_nor_before_what_it_knew() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("clock");
    let lost = TestClock::wrong_by(-50 * YEAR);
    let start = |clock: &TestClock| {
        let mut report = Report::open(Instant::now());
        drop(Keeper::start(clock.clone(), release(), Some(saved.clone()), &mut report));
        clock.now().as_secs()
    };
    assert!(start(&lost).abs_diff(release()) <= 1);
    fs::write(&saved, "not a number").unwrap();
    assert!(start(&TestClock::wrong_by(-50 * YEAR)).abs_diff(release()) <= 1);
    let yesterday = today().as_secs() - 86_400;
    fs::write(&saved, format!("{yesterday}\n")).unwrap();
    assert!(start(&TestClock::wrong_by(-50 * YEAR)).abs_diff(yesterday) <= 1);
    let right = TestClock::default();
    start(&right);
    assert_eq!(right.set(), (0, 0));
}

#[test]
fn a_clock_that_is_wrong_by_ten_years_is_right_after_one_answer() {
    let server = Server::start(1, 0);
    for years in [-10, 10] {
        let clock = TestClock::wrong_by(years * YEAR);
        let mut bench = Bench::new(&clock, server.port, &[1]);
        bench.round();
        assert!(clock.error() < 0.1, "{years}: {}", clock.error());
        assert!(bench.keeper.synced);
    }
}

#[test]
fn once_right_it_is_slewed_and_a_leap_must_be_told_three_times() {
    let server = Server::start(1, 0);
    let clock = TestClock::wrong_by(3600);
    let mut bench = Bench::new(&clock, server.port, &[1]);
    bench.round();
    assert_eq!(clock.set(), (1, 0));
    bench.round();
    assert_eq!(clock.set(), (1, 1));
    server.lie(5 * 86_400);
    bench.round();
    bench.round();
    server.lie(0);
    bench.round();
    assert_eq!(clock.set(), (1, 2), "two lies do not suffice");
    server.lie(5 * 86_400);
    for _ in 0..3 {
        bench.round();
    }
    assert_eq!(clock.set(), (2, 2));
    assert!((clock.error() - 5.0 * 86_400.0).abs() < 1.0);
}

#[test]
fn of_two_servers_both_must_agree() {
    let one = Server::start(11, 0);
    let two = Server::start(12, one.port);
    let clock = TestClock::wrong_by(3600);
    let mut bench = Bench::new(&clock, one.port, &[11, 12]);
    two.lie(-7200);
    bench.round();
    assert_eq!(clock.set(), (0, 0));
    two.lie(0);
    bench.round();
    assert!(clock.error() < 0.1 && bench.keeper.synced);
}

#[test]
fn nobody_leads_back_before_the_release() {
    let server = Server::start(1, 0);
    server.lie(-40 * 86_400);
    let clock = TestClock::default();
    let mut bench = Bench::new(&clock, server.port, &[1]);
    bench.round();
    assert_eq!((clock.set(), bench.keeper.synced), ((0, 0), false));
}

#[test]
fn forged_answers_do_not_keep_the_true_one_away() {
    let server = Server::start(1, 0);
    server.forge.store(true, Ordering::SeqCst);
    let clock = TestClock::wrong_by(3600);
    Bench::new(&clock, server.port, &[1]).round();
    assert!(clock.error() < 0.1, "{}", clock.error());
}

#[test]
fn a_server_that_refuses_is_left_alone() {
    let server = Server::start(1, 0);
    server.stratum.store(0, Ordering::SeqCst);
    let clock = TestClock::wrong_by(3600);
    let mut bench = Bench::new(&clock, server.port, &[1]);
    for _ in 0..5 {
        bench.round();
    }
    assert_eq!((clock.set(), server.asked.load(Ordering::SeqCst)), ((0, 0), 1));
    bench.now += BANISHED;
    server.stratum.store(2, Ordering::SeqCst);
    bench.round();
    assert!(bench.keeper.synced);
}

#[test]
fn without_an_answer_it_asks_again_for_ever_and_ever_more_seldom() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let clock = TestClock::wrong_by(3600);
    let mut bench = Bench::new(&clock, nobody, &[1]);
    for _ in 0..20 {
        bench.round();
    }
    assert_eq!((clock.set(), bench.keeper.pause), ((0, 0), UNSYNCED.1));
    assert!(bench.keeper.next().unwrap() - bench.now <= Duration::from_secs(64));
}

#[test]
fn what_is_known_is_kept_and_what_is_not_known_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("clock");
    let server = Server::start(1, 0);
    let clock = TestClock::wrong_by(3600);
    let mut bench = Bench::with(&clock, server.port, &[1], Some(saved.clone()));
    bench.keeper.keep(&mut bench.report);
    assert!(!saved.exists(), "an hour too late as it is");
    bench.round();
    assert!(read(&saved).unwrap().abs_diff(today().as_secs()) <= 1);
}

#[test]
fn steadiness_makes_questions_rare() {
    let server = Server::start(1, 0);
    let clock = TestClock::default();
    let mut bench = Bench::new(&clock, server.port, &[1]);
    for _ in 0..8 {
        bench.round();
    }
    assert_eq!(bench.keeper.pause, SYNCED.1);
}
