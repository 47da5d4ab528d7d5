//! The verdict on one login: pure, and every case is spelt out.

use crate::device::{Device, Standing};
use crate::login::{Facts, Identity};
use crate::rules::{Mode, NewDevice, Rules};
use crate::verdict::{Admitted, Decision, Held, Refused, Verdict};

/// Judges a login under the rules in force, and as if the mailbox were locked now. The same facts give the same
/// verdicts; `facts.now` is the only time.
///
/// In order:
/// 1. Protocol, network and country are hard limits in every mode.
/// 2. A revoked device is refused in every mode: to revoke must bite, in observe mode too.
/// 3. *observe* admits everything else, with or without identity.
/// 4. *learn* admits; success approves the device while fewer than `max_devices` are approved. Past that, and for a
///    login without usable identity, which has nothing to approve, it is admitted as observed: learning cuts nobody
///    off, and what is lost at the lock, the simulation shows.
/// 5. *lock* admits approved devices. One that is new, or has so far only been observed, may be approved for some days
///    where the rules say so. An approval that ran out waits for the owner.
pub fn decide(rules: &Rules, facts: &Facts<'_>) -> Decision {
    Decision {
        verdict: judge(rules, rules.mode.at(facts.now), facts),
        if_locked: judge(rules, Mode::Lock, facts),
    }
}

fn judge(rules: &Rules, mode: Mode, facts: &Facts<'_>) -> Verdict {
    if let Some(refused) = hard_limit(rules, facts) {
        return Verdict::Refuse(refused);
    }
    let known = Known::of(facts);
    match (mode, known) {
        (Mode::Observe | Mode::Learn { .. } | Mode::Lock, Known::Revoked) => {
            Verdict::Refuse(Refused::Revoked)
        }

        (Mode::Observe, Known::Approved | Known::New | Known::Pending | Known::Expired) => {
            // An approved device that shows less than the rules ask for is still only observed.
            match (unidentified(rules, facts), known) {
                (None, Known::Approved) => Verdict::Admit(Admitted::Approved),
                (None, Known::New | Known::Pending | Known::Expired | Known::Revoked) | (Some(_), _) => {
                    Verdict::Admit(Admitted::Observed)
                }
            }
        }

        (Mode::Learn { .. }, Known::Approved | Known::New | Known::Pending | Known::Expired) => {
            match (unidentified(rules, facts), known) {
                (Some(_), _) => Verdict::Admit(Admitted::Observed),
                (None, Known::Approved) => Verdict::Admit(Admitted::Approved),
                (None, Known::New | Known::Pending | Known::Expired | Known::Revoked)
                    if has_room(rules, facts) =>
                {
                    Verdict::Admit(Admitted::Learning)
                }
                (None, Known::New | Known::Pending | Known::Expired | Known::Revoked) => {
                    Verdict::Admit(Admitted::Observed)
                }
            }
        }

        (Mode::Lock, Known::Approved | Known::New | Known::Pending | Known::Expired) => {
            match (unidentified(rules, facts), known) {
                (Some(refused), _) => Verdict::Refuse(refused),
                (None, Known::Approved) => Verdict::Admit(Admitted::Approved),
                (None, Known::Expired) => Verdict::Hold(Held::Expired),
                (None, Known::Revoked) => Verdict::Refuse(Refused::Revoked),
                (None, Known::New) => new_device(rules, facts, Held::UnknownDevice),
                (None, Known::Pending) => new_device(rules, facts, Held::Unapproved),
            }
        }
    }
}

/// What a lock does with a device nobody has approved yet. One that was observed before is as new as one that was
/// not: to treat it worse would let in the stranger's phone and keep out the owner's.
fn new_device(rules: &Rules, facts: &Facts<'_>, held: Held) -> Verdict {
    match rules.new_device {
        NewDevice::Hold | NewDevice::ApproveForDays(0) => Verdict::Hold(held),
        NewDevice::ApproveForDays(days) if has_room(rules, facts) => {
            Verdict::Admit(Admitted::Provisional { days })
        }
        NewDevice::ApproveForDays(_) => Verdict::Refuse(Refused::TooManyDevices),
    }
}

/// Whether one more device may be approved.
fn has_room(rules: &Rules, facts: &Facts<'_>) -> bool {
    facts.approved < usize::try_from(rules.max_devices).unwrap_or(usize::MAX)
}

/// The limits that hold in every mode.
fn hard_limit(rules: &Rules, facts: &Facts<'_>) -> Option<Refused> {
    let listed = |list: &[String], word: &str| list.iter().any(|held| held.eq_ignore_ascii_case(word));
    // An IPv4 client on a dual-stack socket appears as ::ffff:a.b.c.d; the rules are written for a.b.c.d.
    let address = facts.address.to_canonical();
    if rules.protocols.as_deref().is_some_and(|list| !listed(list, facts.protocol.name())) {
        Some(Refused::Protocol)
    } else if !rules.networks.iter().all(|list| list.iter().any(|network| network.contains(&address))) {
        Some(Refused::Network)
    } else if rules
        .countries
        .as_deref()
        .is_some_and(|list| !facts.country.is_some_and(|word| listed(list, word)))
    {
        Some(Refused::Country)
    } else {
        None
    }
}

/// Why what the session showed does not count as identity, if it does not.
fn unidentified(rules: &Rules, facts: &Facts<'_>) -> Option<Refused> {
    match facts.identity {
        Identity::ClientId { kind } if rules.trusts(kind) => None,
        Identity::ClientId { .. } => Some(Refused::UntrustedType),
        Identity::Traits if rules.require_clientid => Some(Refused::ClientIdRequired),
        Identity::Traits if rules.weak_identity => None,
        Identity::Traits => Some(Refused::NoIdentity),
    }
}

/// A device's standing at the time of the login.
#[derive(Clone, Copy)]
enum Known {
    New,
    Pending,
    Approved,
    Expired,
    Revoked,
}

impl Known {
    fn of(facts: &Facts<'_>) -> Self {
        match facts.device {
            None => Self::New,
            Some(Device { standing: Standing::Pending, .. }) => Self::Pending,
            Some(Device { standing: Standing::Approved { until: None }, .. }) => Self::Approved,
            Some(Device { standing: Standing::Approved { until: Some(until) }, .. })
                if facts.now < *until =>
            {
                Self::Approved
            }
            Some(Device { standing: Standing::Approved { until: Some(_) }, .. }) => Self::Expired,
            Some(Device { standing: Standing::Revoked, .. }) => Self::Revoked,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use mail::session::Protocol;
    use proptest::prelude::*;

    use super::*;
    use crate::device::Alias;
    use crate::login::Traits;
    use crate::rules::Layer;

    const NOW: u64 = 1_000;

    fn device(standing: Standing) -> Device {
        Device {
            alias: Alias("abcdef".into()),
            name: String::new(),
            standing,
            marks: vec![],
            traits: Traits::default(),
            first_seen: 1,
            last_seen: None,
            logins: 1,
        }
    }

    fn facts(device: Option<&Device>) -> Facts<'_> {
        Facts {
            protocol: Protocol::Imap,
            address: "192.0.2.7".parse().unwrap(),
            country: Some("CA"),
            identity: Identity::ClientId { kind: "UUID" },
            device,
            approved: 0,
            pending: 0,
            now: NOW,
        }
    }

    fn rules(mode: Mode) -> Rules {
        Rules { mode, ..Rules::merge(&Layer::default(), None, None) }
    }

    const APPROVED: Standing = Standing::Approved { until: None };
    const EXPIRED: Standing = Standing::Approved { until: Some(NOW) };
    const LEARN: Mode = Mode::Learn { until: NOW + 1 };
    const LEARNT: Mode = Mode::Learn { until: NOW };

    #[test]
    fn every_mode_meets_every_standing() {
        let admit = Verdict::Admit;
        let hold = Verdict::Hold;
        let revoked = Verdict::Refuse(Refused::Revoked);
        for (mode, standing, verdict) in [
            (Mode::Observe, None, admit(Admitted::Observed)),
            (Mode::Observe, Some(Standing::Pending), admit(Admitted::Observed)),
            (Mode::Observe, Some(APPROVED), admit(Admitted::Approved)),
            (Mode::Observe, Some(EXPIRED), admit(Admitted::Observed)),
            (Mode::Observe, Some(Standing::Revoked), revoked),
            (LEARN, None, admit(Admitted::Learning)),
            (LEARN, Some(Standing::Pending), admit(Admitted::Learning)),
            (LEARN, Some(APPROVED), admit(Admitted::Approved)),
            (LEARN, Some(EXPIRED), admit(Admitted::Learning)),
            (LEARN, Some(Standing::Revoked), revoked),
            (LEARNT, None, hold(Held::UnknownDevice)),
            (LEARNT, Some(APPROVED), admit(Admitted::Approved)),
            (Mode::Lock, None, hold(Held::UnknownDevice)),
            (Mode::Lock, Some(Standing::Pending), hold(Held::Unapproved)),
            (Mode::Lock, Some(APPROVED), admit(Admitted::Approved)),
            (Mode::Lock, Some(Standing::Approved { until: Some(NOW + 1) }), admit(Admitted::Approved)),
            (Mode::Lock, Some(EXPIRED), hold(Held::Expired)),
            (Mode::Lock, Some(Standing::Revoked), revoked),
        ] {
            let device = standing.map(device);
            let decision = decide(&rules(mode), &facts(device.as_ref()));
            assert_eq!(decision.verdict, verdict, "{mode:?} {standing:?}");
            let locked = decide(&rules(Mode::Lock), &facts(device.as_ref()));
            assert_eq!(decision.if_locked, locked.verdict, "{mode:?} {standing:?}");
        }
    }

    #[test]
    fn hard_limits_hold_in_every_mode_and_for_approved_devices() {
        let approved = device(APPROVED);
        let words = |word: &str| Some(vec![word.to_owned()]);
        for mode in [Mode::Observe, LEARN, Mode::Lock] {
            let base = rules(mode);
            let networks = vec![vec!["10.0.0.0/8".parse().unwrap()]];
            let elsewhere = vec![vec!["192.0.0.0/8".parse().unwrap()], vec!["10.0.0.0/8".parse().unwrap()]];
            for (rules, refused) in [
                (Rules { protocols: words("pop3"), ..base.clone() }, Refused::Protocol),
                (Rules { protocols: Some(vec![]), ..base.clone() }, Refused::Protocol),
                (Rules { networks, ..base.clone() }, Refused::Network),
                (Rules { networks: elsewhere, ..base.clone() }, Refused::Network),
                (Rules { countries: words("DE"), ..base.clone() }, Refused::Country),
            ] {
                assert_eq!(
                    decide(&rules, &facts(Some(&approved))).verdict,
                    Verdict::Refuse(refused),
                    "{mode:?}"
                );
            }
            let unknown_country = Facts { country: None, ..facts(Some(&approved)) };
            let rules = Rules { countries: words("CA"), ..base };
            assert_eq!(decide(&rules, &unknown_country).verdict, Verdict::Refuse(Refused::Country));
            assert_eq!(decide(&rules, &facts(Some(&approved))).verdict, Verdict::Admit(Admitted::Approved));
        }
    }

    #[test]
    fn a_mapped_address_is_judged_as_ipv4() {
        let rules = Rules { networks: vec![vec!["192.0.2.0/24".parse().unwrap()]], ..rules(Mode::Observe) };
        let mapped = Facts { address: "::ffff:192.0.2.7".parse().unwrap(), ..facts(None) };
        assert_eq!(decide(&rules, &mapped).verdict, Verdict::Admit(Admitted::Observed));
    }

    #[test]
    fn identity_counts_under_a_lock() {
        let approved = device(APPROVED);
        let strict = rules(Mode::Lock);
        let weak = Rules { weak_identity: true, ..strict.clone() };
        let required = Rules { require_clientid: true, ..weak.clone() };
        let mac = Identity::ClientId { kind: "MAC" };
        for (rules, identity, verdict) in [
            (&strict, Identity::Traits, Verdict::Refuse(Refused::NoIdentity)),
            (&weak, Identity::Traits, Verdict::Admit(Admitted::Approved)),
            (&required, Identity::Traits, Verdict::Refuse(Refused::ClientIdRequired)),
            (&required, Identity::ClientId { kind: "UUID" }, Verdict::Admit(Admitted::Approved)),
            (&strict, mac, Verdict::Refuse(Refused::UntrustedType)),
            (&weak, mac, Verdict::Refuse(Refused::UntrustedType)),
        ] {
            let facts = Facts { identity, ..facts(Some(&approved)) };
            assert_eq!(decide(rules, &facts).verdict, verdict, "{identity:?}");
            for mode in [Mode::Observe, LEARN] {
                let open = Rules { mode, ..rules.clone() };
                assert!(matches!(decide(&open, &facts).verdict, Verdict::Admit(_)), "{identity:?} {mode:?}");
            }
        }
    }

    #[test]
    fn new_devices_get_days_while_there_is_room() {
        let pending = device(Standing::Pending);
        let expired = device(EXPIRED);
        let days =
            |days| Rules { new_device: NewDevice::ApproveForDays(days), max_devices: 2, ..rules(Mode::Lock) };
        for (days_given, approved, device, verdict) in [
            (7, 1, None, Verdict::Admit(Admitted::Provisional { days: 7 })),
            (7, 1, Some(&pending), Verdict::Admit(Admitted::Provisional { days: 7 })),
            (7, 2, None, Verdict::Refuse(Refused::TooManyDevices)),
            (7, 1, Some(&expired), Verdict::Hold(Held::Expired)),
            (0, 1, None, Verdict::Hold(Held::UnknownDevice)),
        ] {
            let facts = Facts { approved, ..facts(device) };
            assert_eq!(decide(&days(days_given), &facts).verdict, verdict);
        }
        let learning = Rules { mode: LEARN, ..days(7) };
        let full = Facts { approved: 2, ..facts(None) };
        assert_eq!(
            decide(&learning, &full).verdict,
            Verdict::Admit(Admitted::Observed),
            "learning cuts nobody off"
        );
    }

    fn words(of: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<String>>> {
        prop::option::of(prop::sample::subsequence(of.to_vec(), 0..=of.len()))
            .prop_map(|list| list.map(|list| list.into_iter().map(str::to_owned).collect()))
    }

    fn any_mode() -> impl Strategy<Value = Mode> {
        prop_oneof![
            Just(Mode::Observe),
            (NOW - 2..NOW + 3).prop_map(|until| Mode::Learn { until }),
            Just(Mode::Lock)
        ]
    }

    prop_compose! {
        fn any_layer()(
            mode in prop::option::of(any_mode()),
            protocols in words(&["imap", "pop3", "submission"]),
            networks in prop::option::of(prop::sample::subsequence(vec!["192.0.2.0/24", "10.0.0.0/8"], 0..=2)),
            countries in words(&["CA", "DE"]),
            require_clientid in any::<Option<bool>>(),
            trusted_types in words(&["UUID", "MAC"]),
            weak_identity in any::<Option<bool>>(),
            max_devices in prop::option::of(0_u32..4),
            new_device in prop::option::of(
                prop_oneof![Just(NewDevice::Hold), (0_u32..3).prop_map(NewDevice::ApproveForDays)]),
        ) -> Layer {
            let networks = networks.map(|list| list.iter().map(|net| net.parse().unwrap()).collect());
            Layer { mode, protocols, networks, countries, require_clientid, trusted_types, weak_identity, max_devices, new_device }
        }
    }

    /// What a layer alone forbids: where it is silent, the loosest there is.
    fn alone(layer: &Layer) -> Rules {
        let loosest = Layer {
            mode: layer.mode.or(Some(Mode::Observe)),
            trusted_types: layer.trusted_types.clone().or_else(|| Some(vec!["UUID".into(), "MAC".into()])),
            weak_identity: layer.weak_identity.or(Some(true)),
            max_devices: layer.max_devices.or(Some(u32::MAX)),
            new_device: layer.new_device.or(Some(NewDevice::ApproveForDays(u32::MAX))),
            ..layer.clone()
        };
        Rules::merge(&loosest, None, None)
    }

    proptest! {
        #[test]
        fn merging_never_admits_what_a_layer_refuses(
            layers in [any_layer(), any_layer(), any_layer()],
            standing in prop::option::of(prop_oneof![
                Just(Standing::Pending),
                Just(Standing::Revoked),
                prop::option::of(NOW - 2..NOW + 3).prop_map(|until| Standing::Approved { until })]),
            protocol in prop::sample::select(Protocol::ALL.to_vec()),
            address in prop::sample::select(vec!["192.0.2.7", "10.1.1.1", "2001:db8::1"]),
            country in prop::option::of(prop::sample::select(vec!["CA", "DE", "FR"])),
            kind in prop::option::of(prop::sample::select(vec!["UUID", "MAC"])),
            approved in 0_usize..5,
        ) {
            let device = standing.map(device);
            let facts = Facts {
                protocol,
                address: address.parse::<IpAddr>().unwrap(),
                country,
                identity: kind.map_or(Identity::Traits, |kind| Identity::ClientId { kind }),
                device: device.as_ref(),
                approved,
                pending: 0,
                now: NOW,
            };
            let merged = decide(&Rules::merge(&layers[0], Some(&layers[1]), Some(&layers[2])), &facts);
            for layer in &layers {
                let alone = decide(&alone(layer), &facts);
                if matches!(merged.verdict, Verdict::Admit(_)) {
                    prop_assert!(matches!(alone.verdict, Verdict::Admit(_)), "{layer:?}: {alone:?}, merged {merged:?}");
                }
                if matches!(merged.if_locked, Verdict::Admit(_)) {
                    prop_assert!(matches!(alone.if_locked, Verdict::Admit(_)));
                }
            }
            // And a lock never admits what the rules in force do not.
            if matches!(merged.if_locked, Verdict::Admit(_)) {
                prop_assert!(matches!(merged.verdict, Verdict::Admit(_)));
            }
        }
    }
}
