//! Random passwords, tokens and instants for the bench; nothing here guards a secret of value.

use std::fs::File;
use std::io::Read;

/// `N` octets of the kernel's randomness.
fn octets<const N: usize>() -> [u8; N] {
    let mut buffer = [0; N];
    // /dev/urandom cannot fail on a machine that runs Dovecot; zeros would still give a working bench.
    let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut buffer));
    buffer
}

/// A number below `limit` (which is not zero).
pub fn below(limit: u64) -> u64 {
    u64::from_le_bytes(octets()) % limit.max(1)
}

/// A password of letters and digits: 20 characters, over 100 bits.
pub fn password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    octets::<20>().map(|octet| char::from(LETTERS[usize::from(octet % 32)])).iter().collect()
}

/// A random UUID (version 4), in lower case without braces, as Thunderbird makes it.
pub fn uuid() -> String {
    let mut octets = octets::<16>();
    octets[6] = octets[6] & 0x0f | 0x40;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
