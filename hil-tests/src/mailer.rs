//! Mail programs that people use, unmodified, each told by its own settings where the server is.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::backends::Account;
use crate::guard::Workshop;
use crate::{install, random};

/// How TLS begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tls {
    /// With the first octet.
    Implicit,
    /// By STARTTLS or STLS.
    Start,
}

/// A server as a user's settings name it.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Port of `localhost`.
    pub port: u16,
    /// How TLS begins.
    pub tls: Tls,
    /// PEM of the CA to trust.
    pub ca: &'a Path,
    /// Who logs in.
    pub account: &'a Account,
    /// Where the program may keep its files.
    pub workshop: &'a Workshop,
}

/// A program that reads mail: gives all that it fetched, as text.
pub type Reader = fn(&Server) -> Result<String>;

/// A program that sends mail: server, recipient, message with LF line ends.
pub type Sender = fn(&Server, &str, &str) -> Result<()>;

/// Programs that read by IMAP.
pub const IMAP: [(&str, Reader); 5] = [
    ("curl", curl_imap),
    ("imaplib", imaplib),
    ("fetchmail", fetchmail_imap),
    ("mbsync", mbsync),
    ("neomutt", neomutt_read),
];

/// Programs that read by POP3.
pub const POP3: [(&str, Reader); 3] =
    [("curl", curl_pop3), ("poplib", poplib), ("fetchmail", fetchmail_pop3)];

/// Programs that send.
pub const SUBMISSION: [(&str, Sender); 4] =
    [("curl", curl_send), ("smtplib", smtplib), ("msmtp", msmtp), ("neomutt", neomutt_send)];

/// How long a program may take for one message.
const PATIENCE: Duration = Duration::from_mins(1);

fn curl_imap(server: &Server) -> Result<String> {
    curl(server, "imap", "/INBOX;MAILINDEX=1", &[])
}

fn curl_pop3(server: &Server) -> Result<String> {
    curl(server, "pop3", "/1", &[])
}

fn curl_send(server: &Server, to: &str, message: &str) -> Result<()> {
    let file = server.file("curl-message", &message.replace('\n', "\r\n"))?;
    let file = file.to_string_lossy();
    curl(
        server,
        "smtp",
        "",
        &["--mail-from", &server.account.user, "--mail-rcpt", to, "--upload-file", &file],
    )
    .map(drop)
}

fn curl(server: &Server, scheme: &str, path: &str, more: &[&str]) -> Result<String> {
    let secure = if server.tls == Tls::Implicit { "s" } else { "" };
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--ssl-reqd", "--max-time", "50", "--cacert"]).arg(server.ca);
    command.arg("--user").arg(format!("{}:{}", server.account.user, server.account.password)).args(more);
    command.arg(format!("{scheme}{secure}://localhost:{}{path}", server.port));
    server.run(&mut command, "")
}

fn imaplib(server: &Server) -> Result<String> {
    python(
        server,
        "
import imaplib
if implicit: imap = imaplib.IMAP4_SSL('localhost', port, ssl_context=context)
else:
    imap = imaplib.IMAP4('localhost', port)
    imap.starttls(context)
imap.login(user, password)
imap.select('INBOX', readonly=True)
for number in imap.search(None, 'ALL')[1][0].split():
    print(imap.fetch(number, '(RFC822)')[1][0][1].decode())
imap.logout()
",
        &[],
    )
}

fn poplib(server: &Server) -> Result<String> {
    python(
        server,
        "
import poplib
if implicit: pop = poplib.POP3_SSL('localhost', port, context=context)
else:
    pop = poplib.POP3('localhost', port)
    pop.stls(context)
pop.user(user)
pop.pass_(password)
for number in range(1, pop.stat()[0] + 1):
    print(b'\\n'.join(pop.retr(number)[1]).decode())
pop.quit()
",
        &[],
    )
}

fn smtplib(server: &Server, to: &str, message: &str) -> Result<()> {
    python(
        server,
        "
import smtplib
if implicit: smtp = smtplib.SMTP_SSL('localhost', port, context=context)
else:
    smtp = smtplib.SMTP('localhost', port)
    smtp.starttls(context=context)
smtp.login(user, password)
smtp.sendmail(user, [sys.argv[6]], sys.argv[7])
smtp.quit()
",
        &[to, message],
    )
    .map(drop)
}

fn python(server: &Server, script: &str, more: &[&str]) -> Result<String> {
    let preamble = "
import ssl, sys
implicit, port, ca, user, password = sys.argv[1] == 'implicit', int(sys.argv[2]), *sys.argv[3:6]
context = ssl.create_default_context(cafile=ca)
";
    let implicit = if server.tls == Tls::Implicit { "implicit" } else { "start" };
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-I").arg("-c").arg(format!("{preamble}{script}")).args([implicit, &server.port.to_string()]);
    command.arg(server.ca).args([&server.account.user, &server.account.password]).args(more);
    server.run(&mut command, "")
}

fn msmtp(server: &Server, to: &str, message: &str) -> Result<()> {
    let Account { user, password } = server.account;
    let start = if server.tls == Tls::Implicit { "off" } else { "on" };
    let settings = format!(
        "account default\nhost localhost\nport {}\nfrom {user}\nauth on\nuser {user}\npassword {password}\n\
         tls on\ntls_starttls {start}\ntls_trust_file {}\n",
        server.port,
        server.ca.display()
    );
    let settings = server.file("msmtprc", &settings)?;
    server.run(Command::new("msmtp").arg("-C").arg(settings).arg("--").arg(to), message).map(drop)
}

fn fetchmail_imap(server: &Server) -> Result<String> {
    fetchmail(server, "IMAP")
}

fn fetchmail_pop3(server: &Server) -> Result<String> {
    fetchmail(server, "POP3")
}

fn fetchmail(server: &Server, protocol: &str) -> Result<String> {
    let Account { user, password } = server.account;
    let home = server.folder("fetchmail")?;
    let got = home.join("got");
    let tls = if server.tls == Tls::Implicit { "ssl" } else { "sslproto \"TLS1.2+\"" };
    let settings = format!(
        "poll localhost service {} protocol {protocol}\n  user \"{user}\" password \"{password}\" {tls} sslcertck \
         sslcertfile \"{}\"\n  keep fetchall mda \"cat >>{}\"\n",
        server.port,
        server.ca.display(),
        got.display()
    );
    let settings = server.file("fetchmailrc", &settings)?;
    let mut command = Command::new("fetchmail");
    command.args(["--nodetach", "--nosyslog", "--timeout", "30", "--fetchmailrc"]).arg(settings);
    command.arg("--pidfile").arg(home.join("pid")).env("FETCHMAILHOME", &home);
    server.run(&mut command, "")?;
    Ok(fs::read_to_string(got)?)
}

fn mbsync(server: &Server) -> Result<String> {
    let Account { user, password } = server.account;
    let home = server.folder("mbsync")?;
    let kind = if server.tls == Tls::Implicit { "IMAPS" } else { "STARTTLS" };
    let settings = format!(
        "IMAPAccount box\nHost localhost\nPort {}\nUser {user}\nPass {password}\nSSLType {kind}\nCertificateFile {}\n\n\
         IMAPStore far\nAccount box\n\nMaildirStore near\nPath {home}/\nInbox {home}/inbox\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState {home}/\n",
        server.port,
        server.ca.display(),
        home = home.display()
    );
    let settings = server.file("mbsyncrc", &settings)?;
    server.run(Command::new("mbsync").arg("-c").arg(settings).arg("all"), "")?;
    let mut got = String::new();
    for name in ["new", "cur"] {
        for entry in fs::read_dir(home.join("inbox").join(name))? {
            got.push_str(&fs::read_to_string(entry?.path())?);
        }
    }
    Ok(got)
}

fn neomutt_read(server: &Server) -> Result<String> {
    let home = server.folder("neomutt")?;
    let got = home.join("got");
    let scheme = if server.tls == Tls::Implicit { "imaps" } else { "imap" };
    let settings = format!(
        "{}set folder = \"{scheme}://localhost:{}/\"\nset spool_file = \"+INBOX\"\nset wait_key = no\n\
         set pipe_decode = no\nset quit = yes\npush \"<pipe-message>cat >>{}<enter><quit>\"\n",
        neomutt_settings(server),
        server.port,
        got.display()
    );
    let settings = server.file("neomuttrc", &settings)?;
    // It draws on a terminal, so it gets one.
    let line = format!("neomutt -n -F {}", settings.display());
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command", &line])
        .arg(home.join("screen"))
        .env("TERM", "vt100")
        .env("HOME", &home);
    server.run(&mut command, "")?;
    fs::read_to_string(&got).with_context(|| {
        format!(
            "neomutt saved nothing; its screen: {}",
            String::from_utf8_lossy(&fs::read(home.join("screen")).unwrap_or_default())
        )
    })
}

fn neomutt_send(server: &Server, to: &str, message: &str) -> Result<()> {
    let home = server.folder("neomutt")?;
    let scheme = if server.tls == Tls::Implicit { "smtps" } else { "smtp" };
    let user = server.account.user.replace('@', "%40");
    let settings = format!(
        "{}set smtp_url = \"{scheme}://{user}@localhost:{}/\"\n",
        neomutt_settings(server),
        server.port
    );
    let settings = server.file("neomuttrc", &settings)?;
    let mut command = Command::new("neomutt");
    command.arg("-n").arg("-F").arg(settings).args(["-s", "from neomutt", "--", to]).env("HOME", &home);
    server.run(&mut command, message).map(drop)
}

fn neomutt_settings(server: &Server) -> String {
    let Account { user, password } = server.account;
    format!(
        "set certificate_file = \"{}\"\nset ssl_force_tls = yes\nset ssl_starttls = yes\nset from = \"{user}\"\n\
         set imap_user = \"{user}\"\nset imap_pass = \"{password}\"\nset smtp_pass = \"{password}\"\nset copy = no\n",
        server.ca.display()
    )
}

impl Server<'_> {
    /// Writes a file that only this program's run knows.
    fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        self.workshop.write(&format!("{name}-{}", random::below(u64::MAX)), 0o600, content)
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        self.workshop.folder(&format!("{name}-{}", random::below(u64::MAX)), 0o700)
    }

    /// Runs a program with `input` on its stdin; gives its stdout.
    fn run(&self, command: &mut Command, input: &str) -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        ensure!(
            install::find(&program).is_some(),
            "{program} is not installed; `cargo box test` installs it"
        );
        let error = self.file("stderr", "")?;
        let out = self.file("stdout", "")?;
        command.stdin(Stdio::piped()).stdout(fs::File::create(&out)?).stderr(fs::File::create(&error)?);
        let mut process = self.workshop.spawn(&program, command)?;
        if let Some(mut pipe) = process.child().stdin.take() {
            let _ = pipe.write_all(input.as_bytes()); // a program that ended early says why below
        }
        let start = Instant::now();
        let status = process.wait(PATIENCE);
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        match status {
            Ok(status) if status.success() => Ok(text(&out)),
            Ok(status) => {
                bail!("{program}: {status} after {:?}: {}{}", start.elapsed(), text(&error), text(&out))
            }
            Err(hang) => bail!("{hang}: {}{}", text(&error), text(&out)),
        }
    }
}
