//! One SASL exchange with any mechanism, line by line.
#![no_main]
#![allow(clippy::panic)] // that is how a target reports

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use mail::Secret;
use mail::sasl::{self, Credentials, Exchange, Mechanism, Progress, USER};

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::read(data) else { return };
    let [plain, login, xoauth2, oauthbearer] = Mechanism::ALL;
    let mechanism = match input.start % 4 {
        0 => plain,
        1 => login,
        2 => xoauth2,
        _ => oauthbearer,
    };
    // Odd: the octets are the decoded message, so that the mechanisms' own grammar is reached at once.
    let mut octets = input.octets.to_vec();
    if input.start >= 128 {
        let mut encoded = Secret::<16_384>::new();
        if octets.len() > 12_000 || !sasl::encode(&[&octets], &mut encoded) {
            return;
        }
        octets = encoded.expose().to_vec();
        let mut again = octets.clone();
        assert_eq!(sasl::decode(&mut again).ok().map(|found| found.to_vec()), Some(input.octets.to_vec()));
    }
    let mut exchange = Exchange::start(mechanism);
    for line in octets.split_mut(|&octet| octet == b'\n').take(3) {
        exchange = match exchange.respond(line) {
            Ok(Progress::Continue(next)) => next,
            Ok(Progress::Complete(proof)) => {
                let Ok(found) = proof.credentials(line) else { panic!("complete, and nothing there") };
                assert!(!found.user.is_empty() && found.user.len() <= USER && !found.user.contains(&0));
                assert!(!found.secret.is_empty() && found.authzid != Some(found.user));
                return;
            }
            Err(_) => return,
        };
    }
    let _ = Credentials::parse(mechanism, input.octets);
});
