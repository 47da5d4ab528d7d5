//! A load balancer that tells the gateway another client address, by the PROXY protocol, for mail programs that cannot
//! choose their own.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

use crate::session::proxy_header;

/// Listens on a port of 127.0.0.1 for as long as the process lives, and passes octets both ways.
#[derive(Clone, Copy, Debug)]
pub struct Balancer {
    /// Where to connect instead.
    pub address: SocketAddr,
}

impl Balancer {
    /// Stands before `target`; every connection seems to come from `source`.
    pub fn start(target: SocketAddr, source: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let _ = pass(&client, target, source); // an ended connection is its client's affair
                });
            }
        });
        Ok(Self { address })
    }
}

/// Passes what comes to `listener` on to `target`, adding nothing, for as long as the process lives.
pub fn pass_on(listener: TcpListener, target: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ =
                    TcpStream::connect(target).map_err(Into::into).and_then(|server| relay(&client, &server));
            });
        }
    });
}

fn pass(client: &TcpStream, target: SocketAddr, source: SocketAddr) -> Result<()> {
    let mut server = TcpStream::connect(target)?;
    server.write_all(proxy_header(source, target).as_bytes())?;
    relay(client, &server)
}

fn relay(client: &TcpStream, server: &TcpStream) -> Result<()> {
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let back = (server.try_clone()?, client.try_clone()?);
    let other = thread::spawn(move || copy(&back.0, &back.1));
    copy(client, server);
    let _ = other.join();
    Ok(())
}

/// Passes octets one way, and the end of them.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
