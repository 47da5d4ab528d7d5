//! U-Boot's file of variables: its seed (`EFI_VARIABLES_PRESEED`) has the same format as `ubootefi.var`.
//!
//! Little-endian; the layout is `struct efi_var_file` in U-Boot's `include/efi_variable.h`:
//!
//! | byte | size | what |
//! | --- | --- | --- |
//! | 0 | 8 | zero |
//! | 8 | 8 | `UbEfiVa` and the version, 1 |
//! | 16 | 4 | length of all |
//! | 20 | 4 | CRC-32 of what follows |
//! | 24 | | variables, each at a multiple of 8: length of data (4), attributes (4), time (8), GUID (16), name, data |

use anyhow::{Context, Result};
use crc::{CRC_32_ISO_HDLC, Crc};

use crate::variable::Variable;

/// The seed with these variables.
pub(crate) fn seed(variables: &[Variable]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    for variable in variables {
        body.extend(u32::try_from(variable.data.len()).context("a variable is too long")?.to_le_bytes());
        body.extend(variable.attributes.to_le_bytes());
        body.extend(0_u64.to_le_bytes()); // signed at the beginning of time: any update is newer
        body.extend(variable.vendor);
        body.extend(variable.name_utf16());
        body.extend(&variable.data);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut file = vec![0; 8];
    file.extend(b"UbEfiVa\x01");
    file.extend(u32::try_from(24 + body.len()).context("the variables are too long")?.to_le_bytes());
    file.extend(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&body).to_le_bytes());
    file.extend(body);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read back as U-Boot's `efi_var_restore` does.
    #[test]
    fn seeds_read_back() {
        let variable =
            |name, data: &[u8]| Variable { name, vendor: [7; 16], attributes: 0x27, data: data.into() };
        let variables = [variable("PK", b"12345"), variable("KEK", b""), variable("db", &[9; 1000])];
        let seed = seed(&variables).unwrap();
        let number = |at: usize| u32::from_le_bytes(seed[at..at + 4].try_into().unwrap());
        assert_eq!(seed[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0x55, 0x62, 0x45, 0x66, 0x69, 0x56, 0x61, 0x01]);
        assert_eq!(number(16) as usize, seed.len());
        assert_eq!(number(20), Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&seed[24..]));
        let mut at = 24;
        for variable in &variables {
            assert_eq!((number(at) as usize, number(at + 4)), (variable.data.len(), 0x27));
            assert_eq!(seed[at + 16..at + 32], [7; 16]);
            let name = variable.name_utf16();
            assert_eq!(seed[at + 32..at + 32 + name.len()], name);
            let data = at + 32 + name.len();
            assert_eq!(seed[data..data + variable.data.len()], variable.data);
            at = (data + variable.data.len()).next_multiple_of(8);
        }
        assert_eq!(at, seed.len());
    }
}
