//! The demonstration without the image: the gateway on this machine.

use anyhow::{Result, bail};

use super::{Options, Shown, serve, watch, welcome_all};
use crate::backends::Backends;
use crate::gateway::Gateway;
use crate::install;
use crate::programs::Programs;

pub(super) fn run(options: &Options) -> Result<()> {
    install::ensure_ready(&[install::BACKENDS])?;
    // From here on a signal ends us in good order; before the servers run there is nothing to put in order.
    let ended = watch(options.json)?;
    let programs = Programs::find_or_build(options.profile())?;
    let backends = Backends::start()?;
    welcome_all(&backends)?;
    let mut gateway = Gateway::prepare(&backends, "", &programs)?;
    gateway.resume()?;
    let (ca, settings, control) =
        (gateway.certificate.ca.clone(), gateway.settings.clone(), gateway.control.clone());
    let shown = Shown {
        backends: &backends,
        listeners: gateway.listeners,
        ca: &ca,
        cli: &programs.postern,
        settings: &settings,
        control: Some(&control),
        console: None,
    };
    serve(options, &shown, &ended, || {
        let process = gateway.process()?;
        if !process.is_running() {
            bail!("the gateway ended; {}", process.testament());
        }
        Ok(())
    })
}
