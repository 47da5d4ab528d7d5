//! nginx's mail proxy, one worker, with the fake backend's HTTP side as its `auth_http`.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{Proxy, Site, Started, Tools};
use crate::bench::client::Target;

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_mail_module.so";

/// nginx with `libnginx-mod-mail`.
pub struct Nginx;

impl Proxy for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self, _: &Tools) -> Result<String> {
        ensure!(
            std::path::Path::new(MODULE).exists(),
            "nginx mail is not installed (package libnginx-mod-mail)"
        );
        super::version_of("nginx", "-v", "nginx")
    }

    fn start(&self, site: &Site<'_>) -> Result<Started> {
        let (imap, submission) = super::two_ports()?;
        let folder = site.folder.display();
        let (chain, key) = (site.identity.chain.display(), site.identity.key.display());
        let auth = site.backend.auth_http;
        // Session tickets are on by themselves; a shared cache would only serve TLS 1.2 clients without them.
        // A buffer of one TLS record instead of one page is what an owner with large messages would set.
        // `proxy_smtp_auth` hands the login on to the server, as every other peer does.
        let configuration = site.write(
            "nginx.conf",
            &format!(
                "daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_processes 1;
worker_rlimit_nofile 16384;
load_module {MODULE};
events {{ worker_connections 16000; multi_accept on; }}
mail {{
    server_name bench.test;
    auth_http 127.0.0.1:{auth}/;
    timeout 1h;
    imap_capabilities IMAP4rev1 SASL-IR LITERAL+ ID IDLE;
    smtp_capabilities PIPELINING \"SIZE 52428800\" 8BITMIME ENHANCEDSTATUSCODES;
    smtp_auth plain;
    proxy_buffer 16k;
    proxy_pass_error_message on;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{ listen {imap} ssl backlog=4096; protocol imap; }}
    server {{ listen {submission} ssl backlog=4096; protocol smtp; proxy_smtp_auth on; xclient off; }}
}}
"
            ),
        )?;
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(&site.folder)
            .arg("-c")
            .arg(configuration)
            .arg("-e")
            .arg(site.folder.join("error.log"));
        let process = site.spawn("nginx", &mut command)?;
        Ok(Started { process, target: Target { imap, submission, clientid: false } })
    }
}
