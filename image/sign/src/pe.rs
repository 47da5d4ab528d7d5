//! As much of a PE file as tells what is to be signed (Microsoft's PE format specification).

use anyhow::{Context, Result, ensure};

/// An EFI program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Program {
    /// Whether it has a table of signatures.
    pub(crate) is_signed: bool,
}

impl Program {
    /// Reads the headers.
    ///
    /// # Errors
    /// It is no EFI program for ARM64.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"MZ"), "not an EFI program: it does not begin with MZ");
        let pe = number(bytes, 0x3c, 4)?;
        ensure!(bytes.get(pe..pe.saturating_add(4)) == Some(b"PE\0\0"), "not an EFI program: no PE header");
        let machine = number(bytes, pe + 4, 2)?;
        ensure!(machine == 0xaa64, "a program for machine {machine:#06x}, not for ARM64 (0xaa64)");
        let optional = pe + 24;
        ensure!(number(bytes, optional, 2)? == 0x20b, "not a 64-bit EFI program");
        let subsystem = number(bytes, optional + 68, 2)?;
        ensure!(subsystem == 10, "subsystem {subsystem}: not an EFI application (10)");
        // The fifth entry of the data directory is the certificate table.
        let is_signed =
            number(bytes, optional + 108, 4)? > 4 && number(bytes, optional + 112 + 4 * 8 + 4, 4)? > 0;
        Ok(Self { is_signed })
    }
}

fn number(bytes: &[u8], at: usize, size: usize) -> Result<usize> {
    let field = at.checked_add(size).and_then(|end| bytes.get(at..end)).context("it is cut off")?;
    Ok(field.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

#[cfg(test)]
#[path = "../tests/program/mod.rs"]
mod program;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        let program = program::program();
        assert!(!Program::parse(&program).unwrap().is_signed);
        for length in 0..0x58 + 152 {
            assert!(Program::parse(&program[..length]).is_err(), "{length}");
        }
        let mut other = program.clone();
        other[0x44] = 0x32;
        assert!(Program::parse(&other).unwrap_err().to_string().contains("not for ARM64"));
        let mut wild = program;
        wild[0x3c..0x40].fill(0xff);
        assert!(Program::parse(&wild).is_err());
    }
}
