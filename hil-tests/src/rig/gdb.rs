//! GDB's remote protocol, as far as it takes to hang a processor: `$packet#sum`, each answered by `+` and a packet.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::rig::qmp::patiently;

/// `b .`: a branch to itself.
const SPIN: [u8; 4] = [0x00, 0x00, 0x00, 0x14];

/// Numbers of the registers in GDB's aarch64 description.
const PC: u8 = 0x20;
const CPSR: u8 = 0x21;

/// Debug exceptions, system errors, interrupts and fast interrupts, all masked (PSTATE.DAIF).
const MASKED: u32 = 0xf << 6;

/// A stopped emulator's debugger.
pub(crate) struct Gdb {
    stream: UnixStream,
}

impl Gdb {
    /// Connects, which stops the machine.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = patiently(|| Ok(UnixStream::connect(path)?))
            .with_context(|| format!("QEMU's debugger does not listen on {}", path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut gdb = Self { stream };
        gdb.ask("qSupported:multiprocess+")?;
        gdb.ask("?")?;
        Ok(gdb)
    }

    /// Lets every processor spin with interrupts masked, and lets the machine go on.
    pub(crate) fn hang(mut self) -> Result<()> {
        for thread in self.threads()? {
            ensure!(self.ask(&format!("Hg{thread}"))? == "OK", "no processor {thread}");
            let pc = u64::from_le_bytes(octets(&self.ask(&format!("p{PC:x}"))?)?);
            let cpsr = u32::from_le_bytes(octets(&self.ask(&format!("p{CPSR:x}"))?)?);
            ensure!(
                self.ask(&format!("M{pc:x},4:{}", hex(&SPIN)))? == "OK",
                "cannot write to {pc:#x}, where processor {thread} stands"
            );
            let masked = hex(&(cpsr | MASKED).to_le_bytes());
            ensure!(
                self.ask(&format!("P{CPSR:x}={masked}"))? == "OK",
                "cannot mask the interrupts of {thread}"
            );
        }
        // Detaching lets the machine run on.
        self.ask("D;1").or_else(|_| self.ask("D")).map(drop)
    }

    fn threads(&mut self) -> Result<Vec<String>> {
        let mut threads = Vec::new();
        let mut answer = self.ask("qfThreadInfo")?;
        while let Some(list) = answer.strip_prefix('m') {
            threads.extend(list.split(',').map(String::from));
            answer = self.ask("qsThreadInfo")?;
        }
        ensure!(!threads.is_empty(), "the debugger knows no processor");
        Ok(threads)
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        // `+` may come or not, a notification too; the answer stands between `$` and `#`.
        while self.octet()? != b'$' {}
        let mut answer = String::new();
        loop {
            match self.octet()? {
                b'#' => break,
                octet => answer.push(char::from(octet)),
            }
        }
        self.octet()?;
        self.octet()?;
        self.stream.write_all(b"+")?;
        if answer.starts_with('E') {
            bail!("the debugger refuses {packet}: {answer}");
        }
        Ok(answer)
    }

    fn octet(&mut self) -> Result<u8> {
        let mut octet = [0];
        self.stream.read_exact(&mut octet).context("QEMU's debugger is silent")?;
        Ok(octet[0])
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn octets<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut octets = [0; N];
    ensure!(text.len() >= 2 * N, "the debugger answers {text:?}");
    for (octet, place) in octets.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(text.get(place..place + 2).unwrap_or_default(), 16)
            .with_context(|| format!("the debugger answers {text:?}"))?;
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_and_hex_are_each_others_inverse() {
        assert_eq!(octets::<4>(&hex(&SPIN)).unwrap(), SPIN);
        assert!(octets::<4>("0000").is_err());
        assert!(octets::<2>("zz00").is_err());
    }
}
