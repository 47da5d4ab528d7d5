//! Any octets as the first ones of a TLS connection: no panic, and no difference whether they come at once or in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preface::client_hello::{Progress, Scanner, read};

fuzz_target!(|octets: &[u8]| {
    // The first octet chooses the pieces, the rest is the connection.
    let Some((&step, raw)) = octets.split_first() else { return };
    let whole = read(raw);
    if let Progress::Hello(hello) = &whole {
        assert_eq!(hello.ja4.len(), 36, "{}", hello.ja4);
        assert_eq!(hello.ja4_stable.len(), 36, "{}", hello.ja4_stable);
        assert!(hello.sni.as_ref().is_none_or(|name| name.len() <= 253 && name.is_ascii()));
    }
    let mut scanner = Scanner::new();
    let mut last = scanner.advance(&[]);
    let mut end = 0;
    while last == Progress::NeedMore && end < raw.len() {
        end = (end + usize::from(step).max(1)).min(raw.len());
        last = scanner.advance(&raw[..end]);
    }
    assert_eq!(last, whole);
});
