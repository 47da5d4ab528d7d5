//! Any octets as a PROXY header: no panic, no header longer than its octets, and what is read back after writing is the
//! same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preface::proxy_protocol::{Extras, decode, encode_v1, encode_v2};

fuzz_target!(|raw: &[u8]| {
    let Ok(Some(header)) = decode(raw) else { return };
    assert!(header.consumed <= raw.len());
    // What follows the header changes nothing, and a part of it is never a header.
    assert_eq!(decode(&raw[..header.consumed]), Ok(Some(header)));
    assert_eq!(decode(&raw[..header.consumed - 1]), Ok(None));
    if let Some(ends) = header.ends {
        for again in [encode_v1(ends), encode_v2(ends, &Extras::default())] {
            assert_eq!(decode(&again).map(|read| read.and_then(|read| read.ends)), Ok(Some(ends)));
        }
    }
});
