//! Who logs in: accounts that the fake backend knows, and attackers' guesses.

use std::net::Ipv4Addr;

/// How many accounts exist. Enough that no budget of any peer is spent by the load, few enough to stay warm.
pub const ACCOUNTS: u32 = 200;
/// Every account's password.
pub const PASSWORD: &str = "quiet-harbour-71";
/// The domain of every account.
pub const DOMAIN: &str = "bench.test";

/// One login's name, password, device and network.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `userNNN@bench.test`.
    pub user: String,
    /// What is sent as password.
    pub password: String,
    /// The token of the account's one device, for CLIENTID.
    pub device: String,
    /// The address that the client connects from; loopback has sixteen million of them.
    pub from: Ipv4Addr,
}

/// The `number`-th good login: accounts in turn, each with its own device and from its own network (/24).
pub fn owner(number: u32) -> Credentials {
    let account = number % ACCOUNTS;
    Credentials {
        user: format!("user{account:03}@{DOMAIN}"),
        password: PASSWORD.into(),
        device: format!("5ee0c0de-0000-4000-8000-{account:012x}"),
        from: Ipv4Addr::new(127, 1, account.to_be_bytes()[3], 9),
    }
}

/// The `number`-th attempt of an attack: a new wrong password each time, from a botnet's many networks, half of the
/// attempts against accounts that exist.
pub fn attacker(number: u32) -> Credentials {
    let [_, _, high, low] = number.to_be_bytes();
    let user = if number.is_multiple_of(2) {
        format!("user{:03}@{DOMAIN}", (number / 2) % ACCOUNTS)
    } else {
        format!("nobody{number}@{DOMAIN}")
    };
    Credentials {
        user,
        password: format!("guess-{number}"),
        device: format!("bad0c0de-0000-4000-8000-{number:012x}"),
        from: Ipv4Addr::new(127, 16 + high % 64, low, 9),
    }
}

/// What the fake backend answers to these credentials.
pub fn is_right(user: &str, password: &str) -> bool {
    let number = user.strip_prefix("user").and_then(|rest| rest.strip_suffix(DOMAIN)?.strip_suffix('@'));
    let known = number.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|number| number < ACCOUNTS);
    known && password == PASSWORD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_right_and_attackers_wrong() {
        for number in 0..1000 {
            let good = owner(number);
            assert!(is_right(&good.user, &good.password));
            let bad = attacker(number);
            assert!(!is_right(&bad.user, &bad.password));
            assert_ne!(good.from.octets()[..3], bad.from.octets()[..3]);
        }
        assert!(!is_right("user200@bench.test", PASSWORD));
        assert!(!is_right("user000@elsewhere.test", PASSWORD));
    }
}
