//! An EFI program that does nothing, for the unit tests too.

/// The smallest program that sbsign takes: headers and one section.
pub(crate) fn program() -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0\x64\xaa\x01\0");
    put(0x54, &[0xf0, 0, 0x06, 0x02]); // size of the optional header, characteristics
    put(0x58, &[0x0b, 0x02]);
    put(0x58 + 4, &[0, 2]); // code
    put(0x58 + 16, &[0, 0x10]); // entry
    put(0x58 + 20, &[0, 0x10]); // base of code
    put(0x58 + 32, &[0, 0x10, 0, 0, 0, 2]); // alignments
    put(0x58 + 56, &[0, 0x20, 0, 0, 0, 2]); // sizes of image and headers
    put(0x58 + 68, &[10]);
    put(0x58 + 108, &[16]);
    put(0x148, b".text\0\0\0");
    put(0x148 + 8, &[0, 2, 0, 0, 0, 0x10, 0, 0, 0, 2, 0, 0, 0, 2]);
    put(0x148 + 36, &[0x20, 0, 0, 0x60]);
    put(0x200, b"\xc0\x03\x5f\xd6"); // ret
    bytes
}
