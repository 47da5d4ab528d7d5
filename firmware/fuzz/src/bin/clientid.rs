//! CLIENTID's arguments: what is taken is in the grammar, and taking it again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::ClientId;

fuzz_target!(|data: &[u8]| {
    let Ok((id, underscore)) = ClientId::parse_arguments(data) else { return };
    assert_eq!(
        underscore,
        data.split(|&octet| octet == b' ').next().is_some_and(|kind| kind.contains(&b'_'))
    );
    assert!(
        id.kind.bytes().all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'-')
    );
    assert!((1..=16).contains(&id.kind.len()) && (1..=128).contains(&id.token.expose().len()));
    assert!(id.token.expose().iter().all(u8::is_ascii_graphic));
    assert_eq!(ClientId::parse(id.kind.as_bytes(), id.token.expose()), Ok((id.clone(), false)));
    if let Some(other) = id.unquoted() {
        assert!(other.kind == id.kind && other.token.expose().len() + 2 <= id.token.expose().len());
    }
});
