//! A mail server that follows a script, rightly or wrongly: what no real one would say on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// A server on a port of 127.0.0.1, for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Line {
    reader: BufReader<TcpStream>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Plays `script` to every connection; it ends when the script returns.
    pub fn start(script: impl Fn(&mut Line) -> Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Self { address: listener.local_addr()?, heard: Arc::default() };
        let (heard, script) = (Arc::clone(&server.heard), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(Duration::from_mins(1)));
                    // An error is a peer that left.
                    let _ = script(&mut Line { reader: BufReader::new(stream), heard });
                });
            }
        });
        Ok(server)
    }

    /// Every line that came in, on all connections.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Line {
    /// Sends octets as they are.
    pub fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.reader.get_mut().write_all(text.as_bytes())?)
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        anyhow::ensure!(self.reader.read_line(&mut line)? > 0, "the peer closed");
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        Ok(line)
    }
}

/// Answers the commands every IMAP client may send before login, until one that is not among them, which it returns
/// split into tag and rest.
pub fn imap(line: &mut Line, capabilities: &str) -> Result<(String, String)> {
    loop {
        let command = line.hear()?;
        let (tag, rest) = command.split_once(' ').unwrap_or((&command, ""));
        match rest.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "CAPABILITY" => line.say(&format!("* CAPABILITY {capabilities}\r\n{tag} OK done\r\n"))?,
            "ID" => line.say(&format!("* ID NIL\r\n{tag} OK done\r\n"))?,
            "NOOP" => line.say(&format!("{tag} OK done\r\n"))?,
            "LOGOUT" => line.say(&format!("* BYE\r\n{tag} OK done\r\n"))?,
            _ => return Ok((tag.to_owned(), rest.to_owned())),
        }
    }
}

/// Answers the commands every SMTP client may send before AUTH and NOOP, RSET; returns any other one.
pub fn smtp(line: &mut Line, keywords: &[&str]) -> Result<String> {
    loop {
        let command = line.hear()?;
        match command.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => {
                line.say("250-script.example.test\r\n")?;
                for keyword in keywords {
                    line.say(&format!("250-{keyword}\r\n"))?;
                }
                line.say("250 ENHANCEDSTATUSCODES\r\n")?;
            }
            "NOOP" | "RSET" => line.say("250 2.0.0 Ok\r\n")?,
            "XCLIENT" => line.say("220 script.example.test ESMTP\r\n")?,
            "QUIT" => line.say("221 2.0.0 Bye\r\n")?,
            _ => return Ok(command),
        }
    }
}
