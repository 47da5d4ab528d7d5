//! A mail server that only pretends: it answers logins, a large FETCH, IDLE and submissions as fast as one core can,
//! so that what is measured is the proxy in front of it. It also answers nginx's `auth_http` question.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::account;
use super::payload::{self, LITERAL};
use super::wire::Wire;

/// Where it listens; its first line on stdout, as JSON.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Ports {
    /// IMAP in clear.
    pub imap: u16,
    /// Submission in clear, with AUTH.
    pub submission: u16,
    /// HTTP for nginx mail (`ngx_mail_auth_http_module`).
    pub auth_http: u16,
}

/// Serves until stdin closes, so that it never outlives the bench.
pub fn run() -> Result<()> {
    let _ = LITERAL.len(); // made now rather than in the first FETCH
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("{}", serde_json::to_string(&spawn()?)?);
        until_stdin_closes().await;
        Ok(())
    })
}

/// Serves on free ports for as long as the runtime that it is called in.
pub fn spawn() -> Result<Ports> {
    let (imap, submission, auth_http) = (listen()?, listen()?, listen()?);
    let ports = Ports {
        imap: imap.local_addr()?.port(),
        submission: submission.local_addr()?.port(),
        auth_http: auth_http.local_addr()?.port(),
    };
    tokio::spawn(accept(imap, serve_imap));
    tokio::spawn(accept(submission, serve_submission));
    tokio::spawn(accept(auth_http, move |stream| serve_auth_http(stream, ports)));
    Ok(ports)
}

/// Returns once nobody holds the other end of stdin any more.
pub async fn until_stdin_closes() {
    let end =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    let _ = end.await; // an error is an end too
}

/// A listener on a free port of loopback, with a queue long enough for thousands of clients at once. Must be called
/// inside a runtime.
pub fn listen() -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.listen(4096).context("cannot listen on loopback")
}

async fn accept<F, S>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream) -> S + Send,
    S: Future<Output = std::io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
            // Out of descriptors, most likely: the clients count their failures, we only must not spin.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN";

/// IMAP (RFC 3501), the few commands that proxies and the load client send.
async fn serve_imap(stream: TcpStream) -> std::io::Result<()> {
    let mut wire = Wire::new(stream);
    wire.send(format!("* OK [CAPABILITY {CAPABILITIES}] Backend ready.\r\n").as_bytes()).await?;
    while let Some(line) = wire.line().await? {
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb.to_ascii_uppercase().as_str() {
            "CAPABILITY" => {
                wire.send(format!("* CAPABILITY {CAPABILITIES}\r\n{tag} OK Done.\r\n").as_bytes()).await?;
            }
            "ID" => wire.send(format!("* ID NIL\r\n{tag} OK Done.\r\n").as_bytes()).await?,
            "LOGIN" => {
                let words = astrings(&mut wire, rest).await?;
                let right = matches!(words.as_slice(), [user, password] if account::is_right(user, password));
                wire.send(imap_login_reply(tag, right).as_bytes()).await?;
            }
            "AUTHENTICATE" => {
                let response = sasl_response(&mut wire, rest, b"+ \r\n").await?;
                wire.send(imap_login_reply(tag, plain_is_right(&response)).as_bytes()).await?;
            }
            "SELECT" => {
                let reply = format!(
                    "* FLAGS (\\Seen)\r\n* 1 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 1] Valid.\r\n\
                     {tag} OK [READ-WRITE] Selected.\r\n"
                );
                wire.send(reply.as_bytes()).await?;
            }
            "FETCH" => {
                wire.send(format!("* 1 FETCH (BODY[] {{{}}}\r\n", LITERAL.len()).as_bytes()).await?;
                wire.send(&LITERAL).await?;
                wire.send(format!(")\r\n{tag} OK Fetched.\r\n").as_bytes()).await?;
            }
            "IDLE" => {
                wire.send(b"+ idling\r\n").await?;
                if wire.line().await?.is_none() {
                    break;
                }
                wire.send(format!("{tag} OK Idled.\r\n").as_bytes()).await?;
            }
            "NOOP" => wire.send(format!("{tag} OK Done.\r\n").as_bytes()).await?,
            "LOGOUT" => {
                wire.send(format!("* BYE Logging out.\r\n{tag} OK Done.\r\n").as_bytes()).await?;
                break;
            }
            _ => wire.send(format!("{tag} BAD Unknown.\r\n").as_bytes()).await?,
        }
    }
    wire.shutdown().await
}

fn imap_login_reply(tag: &str, right: bool) -> String {
    if right {
        format!("{tag} OK [CAPABILITY {CAPABILITIES}] Logged in.\r\n")
    } else {
        format!("{tag} NO [AUTHENTICATIONFAILED] Authentication failed.\r\n")
    }
}

/// The astrings of a command (RFC 3501 §4): atoms, quoted strings and literals, which proxies choose freely.
async fn astrings(wire: &mut Wire<TcpStream>, first: &str) -> std::io::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut line = first.to_owned();
    let mut rest = line.as_str();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(words);
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (word, behind) = unquote(quoted);
            words.push(word);
            rest = behind;
        } else if let Some(count) = rest.strip_prefix('{').and_then(|count| count.strip_suffix('}')) {
            let (count, waits) = count.strip_suffix('+').map_or((count, true), |count| (count, false));
            if waits {
                wire.send(b"+ OK\r\n").await?;
            }
            let octets = wire.octets(count.parse().unwrap_or(0).min(4096)).await?;
            words.push(String::from_utf8_lossy(&octets).into_owned());
            line = wire.line().await?.unwrap_or_default();
            rest = &line;
        } else {
            let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = behind;
        }
    }
}

/// A quoted string from behind its opening quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (word, &text[at + 1..]),
            '\\' => word.extend(characters.next().map(|(_, escaped)| escaped)),
            other => word.push(other),
        }
    }
    (word, "")
}

/// The response behind the mechanism's name or, if there is none, in the line after a continuation.
async fn sasl_response(
    wire: &mut Wire<TcpStream>,
    arguments: &str,
    continuation: &[u8],
) -> std::io::Result<String> {
    if let Some((_, response)) = arguments.split_once(' ') {
        return Ok(response.to_owned());
    }
    wire.send(continuation).await?;
    Ok(wire.line().await?.unwrap_or_default())
}

/// SASL PLAIN (RFC 4616): `[authzid] NUL authcid NUL password`, in base64.
fn plain_is_right(response: &str) -> bool {
    let decoded = Base64::decode_vec(response.trim()).unwrap_or_default();
    let text = String::from_utf8_lossy(&decoded);
    let mut parts = text.split('\0').skip(1);
    matches!((parts.next(), parts.next()), (Some(user), Some(password)) if account::is_right(user, password))
}

/// Submission (RFC 6409) with AUTH PLAIN, to QUIT.
async fn serve_submission(stream: TcpStream) -> std::io::Result<()> {
    let mut wire = Wire::new(stream);
    wire.send(b"220 backend.bench.test ESMTP\r\n").await?;
    while let Some(line) = wire.line().await? {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => "250-backend.bench.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n\
                 250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN\r\n"
                .to_owned(),
            "HELO" => "250 backend.bench.test\r\n".to_owned(),
            "AUTH" => {
                let response = sasl_response(&mut wire, rest, b"334 \r\n").await?;
                if plain_is_right(&response) {
                    "235 2.7.0 Authentication successful\r\n".to_owned()
                } else {
                    "535 5.7.8 Authentication credentials invalid\r\n".to_owned()
                }
            }
            "MAIL" | "RCPT" => "250 2.1.0 OK\r\n".to_owned(),
            "RSET" | "NOOP" => "250 2.0.0 OK\r\n".to_owned(),
            "DATA" => {
                wire.send(b"354 Go ahead\r\n").await?;
                let mut message = wire.until(b"\r\n.\r\n").await?;
                message.extend_from_slice(b"\r\n");
                format!("250 2.0.0 {}\r\n", payload::receipt(&message))
            }
            "QUIT" => {
                wire.send(b"221 2.0.0 Bye\r\n").await?;
                break;
            }
            _ => "500 5.5.1 Unknown command\r\n".to_owned(),
        };
        wire.send(reply.as_bytes()).await?;
    }
    wire.shutdown().await
}

/// One question of nginx mail: which server, if the password is right? nginx checks passwords here, not at the server.
async fn serve_auth_http(stream: TcpStream, ports: Ports) -> std::io::Result<()> {
    let mut wire = Wire::new(stream);
    let (mut user, mut password, mut protocol) = (String::new(), String::new(), String::new());
    while let Some(line) = wire.line().await? {
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            }
            continue; // the request line
        };
        match name {
            "Auth-User" => value.clone_into(&mut user),
            "Auth-Pass" => value.clone_into(&mut password),
            "Auth-Protocol" => value.clone_into(&mut protocol),
            _ => {}
        }
    }
    let reply = if account::is_right(&user, &password) {
        let port = if protocol == "smtp" { ports.submission } else { ports.imap };
        format!("HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {port}\r\n\r\n")
    } else {
        "HTTP/1.0 200 OK\r\nAuth-Status: Invalid login or password\r\n\r\n".to_owned()
    };
    wire.send(reply.as_bytes()).await?;
    wire.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_end_at_their_own_quote() {
        assert_eq!(unquote(r#"a\"b\\" "next""#), (r#"a"b\"#.to_owned(), r#" "next""#));
        assert_eq!(unquote("open"), ("open".to_owned(), ""));
    }

    #[test]
    fn sasl_plain_is_checked() {
        let right = Base64::encode_string(format!("\0user007@bench.test\0{}", account::PASSWORD).as_bytes());
        assert!(plain_is_right(&right));
        assert!(!plain_is_right(&Base64::encode_string(b"\0user007@bench.test\0guess")));
        assert!(!plain_is_right("*"));
    }
}
