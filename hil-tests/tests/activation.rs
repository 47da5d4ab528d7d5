//! Promise: whoever starts the gateway can open its ports for it and hears whether it is ready and alive, as init does
//! on the box and systemd on a server.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hil_tests::backends::Backends;
use hil_tests::client::Client;
use hil_tests::gateway::Gateway;

/// Opens the first argument's address, and starts the rest with that socket as descriptor 3.
const STARTER: &str = "\
import os, socket, sys
host, port = sys.argv[1].rsplit(':', 1)
s = socket.socket(); s.bind((host, int(port))); s.listen(64)
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=sys.argv[2], WATCHDOG_USEC='1000000')
os.execv(sys.argv[3], sys.argv[3:])";

/// The states that arrive within `time`.
fn states(socket: &UnixDatagram, time: Duration) -> Result<Vec<String>> {
    let end = Instant::now() + time;
    let mut heard = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; 512];
        let Ok(length) = socket.recv(&mut buffer) else { break };
        heard.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    Ok(heard)
}

/// A gateway that ignored the socket could not serve: its starter holds the address.
#[test]
fn a_passed_socket_serves_and_life_signs_come() -> Result<()> {
    let backends = Backends::start()?;
    let mut gateway = Gateway::under_test(&backends, "")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let notices = UnixDatagram::bind(&path)?;
    gateway.wrapper = ["python3", "-c", STARTER].map(str::to_owned).to_vec();
    gateway.wrapper.push(gateway.listeners.imaps.to_string());
    gateway.wrapper.push(path.to_str().context("path")?.to_owned());
    gateway.resume()?;

    let heard = states(&notices, Duration::from_secs(3))?;
    ensure!(heard.first().is_some_and(|first| first == "READY=1" || first == "WATCHDOG=1"), "{heard:?}");
    ensure!(heard.iter().filter(|state| *state == "READY=1").count() == 1, "{heard:?}");
    ensure!(heard.iter().filter(|state| *state == "WATCHDOG=1").count() >= 3, "{heard:?}");
    let mut phone = Client::tls(gateway.listeners.imaps, &gateway.trust()?)?;
    ensure!(phone.line()?.starts_with("* OK"));

    drop(phone);
    gateway.stop(Duration::from_secs(35))?;
    let heard = states(&notices, Duration::from_secs(1))?;
    ensure!(heard.iter().any(|state| state == "STOPPING=1"), "{heard:?}");
    Ok(())
}

/// Nobody restarts a gateway, or resets a board, for settings that stay wrong.
#[test]
fn wrong_settings_have_an_exit_code_of_their_own() -> Result<()> {
    let backends = Backends::start()?;
    let gateway = Gateway::under_test(&backends, "")?;
    std::fs::write(&gateway.settings, "[box]\nhostnmae = \"mail.example.test\"\n")?;
    let mut process = gateway.spawn()?;
    let status = process.wait(Duration::from_secs(10))?;
    ensure!(status.code() == Some(78), "{status:?}");
    Ok(())
}
