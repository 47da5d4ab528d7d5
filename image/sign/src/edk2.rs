//! The flash in which EDK II keeps its variables on QEMU's `virt`.
//!
//! 768 KiB in three blocks of 256 KiB, then nothing up to the 64 MiB that the board's flash has: a firmware volume with
//! the variables, the area that makes updates of it whole, and its spare block. The structures are those of EDK II's
//! `MdeModulePkg/Include/Guid/VariableFormat.h`, `SystemNvDataGuid.h` and the PI specification, volume 3, §3.2.1.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use crc::{CRC_32_ISO_HDLC, Crc};

use crate::variable::{BOOT, NON_VOLATILE, Variable, guid};

/// Writes the flash with these variables, and with Secure Boot on.
pub(crate) fn write(variables: &[Variable], out: &Path) -> Result<()> {
    let enable =
        Variable { name: "SecureBootEnable", vendor: ENABLE, attributes: NON_VOLATILE | BOOT, data: vec![1] };
    let volume = volume(variables.iter().chain([&enable]))?;
    let mut file = File::create(out).with_context(|| out.display().to_string())?;
    file.write_all(&volume).and_then(|()| file.set_len(FLASH)).with_context(|| out.display().to_string())
}

/// What the drive must have: QEMU refuses any other size.
const FLASH: u64 = 64 << 20;
const BLOCK: u32 = 256 << 10;

/// `gEfiSystemNvDataFvGuid`.
const VOLUME: [u8; 16] = guid(0xfff1_2b8d, 0x7696, 0x4c8b, [0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50]);
/// `gEfiAuthenticatedVariableGuid`.
const STORE: [u8; 16] = guid(0xaaf3_2c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);
/// `gEdkiiWorkingBlockSignatureGuid`.
const WORKING: [u8; 16] = guid(0x9e58_292b, 0x7c68, 0x497d, [0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b, 0x95]);
/// `gEfiSecureBootEnableDisableGuid`.
const ENABLE: [u8; 16] = guid(0xf0a3_0bc7, 0xaf08, 0x4556, [0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44]);

/// Bytes of the volume's header, of which the last 16 are the map of its blocks.
const HEADER: u8 = 72;

fn volume<'a>(variables: impl Iterator<Item = &'a Variable>) -> Result<Vec<u8>> {
    let mut flash = vec![0; 16];
    flash.extend(VOLUME);
    flash.extend(u64::from(3 * BLOCK).to_le_bytes());
    flash.extend(b"_FVH");
    flash.extend(0xe36_u32.to_le_bytes()); // readable, writable, erased to ones, of memory kind
    flash.extend([HEADER, 0, 0, 0, 0, 0, 0, 2]); // length, checksum (below), no more headers, revision
    // The map counts all blocks of the flash.
    for number in [256, BLOCK, 0, 0] {
        flash.extend(number.to_le_bytes());
    }
    let sum = flash
        .chunks_exact(2)
        .fold(0_u16, |sum, pair| sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]])));
    flash[50..52].copy_from_slice(&sum.wrapping_neg().to_le_bytes());

    flash.extend(STORE);
    flash.extend((BLOCK - u32::from(HEADER)).to_le_bytes());
    flash.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]); // formatted, healthy
    for variable in variables {
        append(&mut flash, variable)?;
    }
    let block = BLOCK as usize;
    ensure!(flash.len() <= block, "the variables do not fit into the flash");
    flash.resize(block, ERASED);

    flash.extend(working_header());
    flash.resize(3 * block, ERASED);
    Ok(flash)
}

const ERASED: u8 = 0xff;

/// `AUTHENTICATED_VARIABLE_HEADER`, name, data; each variable begins at a multiple of 4.
fn append(flash: &mut Vec<u8>, variable: &Variable) -> Result<()> {
    let name = variable.name_utf16();
    flash.extend([0xaa, 0x55, 0x3f, 0]); // begins, was added and is valid
    flash.extend(variable.attributes.to_le_bytes());
    flash.extend([0; 8 + 16 + 4]); // counter, time of signing and key's number: unused, the beginning of time, none
    for length in [name.len(), variable.data.len()] {
        flash.extend(u32::try_from(length).context("a variable is too long")?.to_le_bytes());
    }
    flash.extend(variable.vendor);
    flash.extend(name);
    flash.extend(&variable.data);
    flash.resize(flash.len().next_multiple_of(4), ERASED);
    Ok(())
}

/// `EFI_FAULT_TOLERANT_WORKING_BLOCK_HEADER`: the area is valid, and no update is under way.
fn working_header() -> Vec<u8> {
    let mut header = WORKING.to_vec();
    header.extend([ERASED; 8]); // the checksum is made over these
    header.extend((u64::from(BLOCK) - 32).to_le_bytes());
    let checksum = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header[20] = 0xfe;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksums are those that EDK II's own flash has.
    #[test]
    fn flash() {
        let variable = Variable { name: "db", vendor: [7; 16], attributes: 0x27, data: vec![1, 2, 3] };
        let flash = volume([&variable, &variable].into_iter()).unwrap();
        let block = BLOCK as usize;
        assert_eq!(flash.len(), 3 * block);
        assert_eq!(flash[48..56], [0x48, 0, 0xf8, 0xf8, 0, 0, 0, 2]);
        assert_eq!(flash[block + 16..block + 24], [0x5b, 0xe7, 0xc6, 0x86, 0xfe, 0xff, 0xff, 0xff]);
        let first = usize::from(HEADER) + 28;
        let second = (first + 60 + 6 + 3).next_multiple_of(4);
        for at in [first, second] {
            assert_eq!(flash[at..at + 4], [0xaa, 0x55, 0x3f, 0]);
            assert_eq!(flash[at + 36..at + 44], [6, 0, 0, 0, 3, 0, 0, 0]);
            assert_eq!(flash[at + 60..at + 69], [b'd', 0, b'b', 0, 0, 0, 1, 2, 3]);
        }
        assert_eq!(flash[second + 72], ERASED);
        let large = Variable { data: vec![0; block], ..variable };
        assert!(volume([&large].into_iter()).is_err());
    }
}
