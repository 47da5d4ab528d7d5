//! The limit: TLS off, bytes on, and not one line of mail. rustls with ring and tokio, as in the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::backend;

/// One TLS record's worth, in each direction, for as long as a connection lasts (RFC 8446 §5.1). tokio's own 8 KiB would
/// be a slower limit.
const BUFFER: usize = 16 * 1024;

/// What it serves and where to.
#[derive(clap::Args, Clone, Debug)]
pub struct PumpArgs {
    /// PEM chain.
    #[arg(long)]
    pub chain: PathBuf,
    /// PEM key.
    #[arg(long)]
    pub key: PathBuf,
    /// The IMAP server.
    #[arg(long)]
    pub imap: SocketAddr,
    /// The submission server.
    #[arg(long)]
    pub submission: SocketAddr,
}

/// Where it listens; its first line on stdout, as JSON.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Ready {
    /// IMAP under TLS.
    pub imaps: SocketAddr,
    /// Submission under TLS.
    pub submissions: SocketAddr,
}

/// Pumps until stdin closes.
pub fn run(args: &PumpArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("{}", serde_json::to_string(&spawn(args)?)?);
        backend::until_stdin_closes().await;
        Ok(())
    })
}

/// Pumps on free ports for as long as the runtime that it is called in.
pub fn spawn(args: &PumpArgs) -> Result<Ready> {
    let acceptor = TlsAcceptor::from(Arc::new(config(args)?));
    let (imaps, submissions) = (backend::listen()?, backend::listen()?);
    let ready = Ready { imaps: imaps.local_addr()?, submissions: submissions.local_addr()? };
    tokio::spawn(accept(imaps, acceptor.clone(), args.imap));
    tokio::spawn(accept(submissions, acceptor, args.submission));
    Ok(ready)
}

/// TLS 1.2 and 1.3 with stateless tickets, which is also what the peers do.
fn config(args: &PumpArgs) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&args.chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", args.chain.display()))?;
    let key = PrivateKeyDer::from_pem_file(&args.key)
        .with_context(|| format!("cannot read {}", args.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { pump(stream, acceptor, to).await.ok() });
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn pump(client: TcpStream, acceptor: TlsAcceptor, to: SocketAddr) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}
