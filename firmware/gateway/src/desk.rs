//! The control socket: who may ask, framing, and one task a caller. What is asked is answered in `devices`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::{ControlError, ErrorCode, Frames, Request, Response, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::devices::Desk;
use crate::gateway::Gateway;

/// Callers at once: consoles, a few shells.
const CALLERS: usize = 32;
/// A caller that says nothing for this long is sent away.
const SILENCE: Duration = Duration::from_mins(10);

/// The bound socket; its file is removed when it is dropped.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the control socket, readable by everybody whom its peer check lets in.
///
/// # Errors
/// The folder is missing or not ours; another gateway answers there.
pub fn bind(path: &Path) -> io::Result<Socket> {
    let name = |error: io::Error| {
        io::Error::new(error.kind(), format!("control socket {}: {error}", path.display()))
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let error =
                    io::Error::new(io::ErrorKind::AddrInUse, "another gateway answers there; stop it first");
                return Err(name(error));
            }
            // Left behind by a gateway that was killed.
            fs::remove_file(path).map_err(name)?;
        }
        Ok(_) => {
            let error =
                io::Error::new(io::ErrorKind::AlreadyExists, "is there and is no socket; move it away");
            return Err(name(error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
                fs::create_dir_all(folder).map_err(name)?;
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(name)?;
            }
        }
        Err(error) => return Err(name(error)),
    }
    let listener = UnixListener::bind(path).map_err(name)?;
    // Anybody may connect; the kernel tells us who it is, and most are sent away with a word that says why.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(name)?;
    Ok(Socket { listener, path: path.into() })
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Answers callers until `stop` turns true.
    pub async fn run(self, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        let callers = Arc::new(Semaphore::new(CALLERS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&callers).try_acquire_owned() else { continue };
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = serve(gateway, stream).await {
                    tracing::debug!(%error, "a control connection failed");
                }
            });
        }
    }
}

async fn serve(gateway: Arc<Gateway>, mut stream: UnixStream) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    let allowed = {
        let current = gateway.current();
        let own = nix::unistd::geteuid().as_raw();
        caller.uid() == 0 || caller.uid() == own || current.settings.control.uids.contains(&caller.uid())
    };
    if !allowed {
        warn!(uid = caller.uid(), "control socket: refused");
        let mend = "run it as root or as the gateway's user, or add the user id to [control] uids";
        let text = format!("user id {} may not use this socket", caller.uid());
        return send(&mut stream, &Response::from(ControlError::new(ErrorCode::Forbidden, text, mend))).await;
    }
    let mut desk = Desk::new(gateway, format!("uid {}", caller.uid()));
    let mut frames = Frames::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match frames.take::<Request>() {
            Ok(Some(Request::Events { account, since, limit, follow: true })) => {
                return follow(&desk, stream, account, since, limit).await;
            }
            Ok(Some(request)) => {
                for response in desk.answer(request).await {
                    send(&mut stream, &response).await?;
                }
            }
            Ok(None) => {
                let read = timeout(SILENCE, stream.read(&mut buffer));
                match read.await {
                    Ok(Ok(0)) | Err(_) => return Ok(()),
                    Ok(Ok(n)) => frames.push(buffer.get(..n).unwrap_or_default()),
                    Ok(Err(error)) => return Err(error),
                }
            }
            Err(error) => {
                info!(%error, "control socket: not a request");
                let mend = "use the postern command of the same version as the gateway";
                let error = ControlError::new(ErrorCode::Protocol, error.to_string(), mend);
                return send(&mut stream, &Response::from(error)).await;
            }
        }
    }
}

async fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let bytes = frame::encode(response).map_err(io::Error::other)?;
    timeout(SILENCE, stream.write_all(&bytes)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Sends the journal's tail, then every event as it comes, until the caller hangs up.
async fn follow(
    desk: &Desk,
    mut stream: UnixStream,
    account: Option<String>,
    since: Option<u64>,
    limit: u32,
) -> io::Result<()> {
    let mut news = desk.listen();
    let account = match desk.follow_start(account, since, limit).await {
        Ok((account, pages)) => {
            for page in pages {
                send(&mut stream, &page).await?;
            }
            account
        }
        Err(error) => return send(&mut stream, &Response::from(error)).await,
    };
    let mut byte = [0];
    loop {
        tokio::select! {
            event = news.recv() => match event {
                Ok(event) => {
                    if let Some(page) = Desk::news(&event, account.as_deref()) {
                        send(&mut stream, &page).await?;
                    }
                }
                // A slow reader misses some; the journal has them.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = stream.read(&mut byte) => return Ok(()),
        }
    }
}
