//! `sign`: makes keys, signs what boots, verifies it, and writes the variables that tell firmware whom to trust.
//!
//! The only code that touches a private key; it hands them to openssl and sbsign and reads none itself.

mod edk2;
mod key;
mod pe;
mod program;
mod tool;
mod uboot;
mod variable;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::key::Keys;

/// Makes keys for Secure Boot, signs EFI programs with them, and writes what firmware needs to trust them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes development keys: PK, KEK and db, each an RSA-2048 key with a self-signed certificate.
    Keys {
        /// The folder to make; it must not be there yet, and git must ignore it if it lies in a work tree.
        #[arg(long)]
        out: PathBuf,
        /// Whose keys they are: part of the certificates' names.
        #[arg(long)]
        name: String,
    },
    /// Signs an EFI program, and verifies the result before it takes its place.
    Efi {
        /// The private key, PEM; its certificate lies beside it and ends with `.crt`.
        #[arg(long)]
        key: PathBuf,
        /// The program to sign.
        #[arg(long = "in")]
        input: PathBuf,
        /// Where to put the signed one.
        #[arg(long)]
        out: PathBuf,
    },
    /// Says whether an EFI program is signed by the holder of a certificate.
    Verify {
        /// The certificate, PEM.
        #[arg(long)]
        cert: PathBuf,
        /// The program.
        file: PathBuf,
    },
    /// Writes the Secure Boot variables PK, KEK and db for a firmware to start from. Needs certificates only.
    Variables {
        /// The folder of the keys, or of their certificates alone.
        #[arg(long)]
        keys: PathBuf,
        /// For which firmware.
        #[arg(long)]
        format: Format,
        /// The file to write; for `esl` a folder.
        #[arg(long)]
        out: PathBuf,
    },
}

/// How firmware takes its variables.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The flash of QEMU's `virt` under EDK II (a pflash drive of 64 MiB), Secure Boot on.
    Edk2,
    /// The seed that U-Boot is built with (`EFI_VAR_SEED_FILE`).
    Uboot,
    /// Signature lists and certificates as files, for a firmware's own set-up program.
    Esl,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Keys { out, name } => key::make(&out, &name),
        Command::Efi { key, input, out } => program::sign(&key, &input, &out),
        Command::Verify { cert, file } => {
            program::verify(&cert, &file)?;
            println!("{} is signed by {}", file.display(), cert.display());
            Ok(())
        }
        Command::Variables { keys, format, out } => {
            let variables = variable::secure_boot(&Keys::at(&keys))?;
            match format {
                Format::Edk2 => edk2::write(&variables, &out),
                Format::Uboot => {
                    fs::write(&out, uboot::seed(&variables)?).with_context(|| out.display().to_string())
                }
                Format::Esl => variable::write_files(&variables, &Keys::at(&keys), &out),
            }
        }
    }
}
