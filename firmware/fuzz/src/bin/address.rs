//! Paths, domains and account names: what is printed reads back as the same, and has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::account::{Account, LocalCase};
use mail::address::{Charset, Path};
use mail::domain::Domain;

fuzz_target!(|data: &[u8]| {
    for charset in [Charset::Ascii, Charset::Utf8] {
        if let Ok((path, rest)) = Path::take(data, charset) {
            let printed = path.to_string();
            assert_eq!(Path::parse(printed.as_bytes(), charset).as_ref(), Ok(&path));
            assert!(data.ends_with(rest));
            assert!(!printed.bytes().any(|octet| octet < 0x20 || octet == 0x7f), "a control got through");
            if let Some(account) = path.mailbox().and_then(|mailbox| mailbox.account(LocalCase::Fold)) {
                assert_eq!(Account::parse(account.as_str().as_bytes(), None), Ok(account));
            }
        }
    }
    if let Ok(domain) = Domain::parse(data) {
        assert_eq!(Domain::parse(domain.as_str().as_bytes()), Ok(domain));
    }
    for case in [LocalCase::Fold, LocalCase::Keep] {
        if let Ok(account) = Account::parse_with(data, None, case) {
            assert!(account.as_str().matches('@').count() <= 1);
            assert_eq!(Account::parse_with(account.as_str().as_bytes(), None, case), Ok(account));
        }
    }
});
