//! Export and import, in parts.

use serde::{Deserialize, Serialize};

/// A part of the one readable file that an export is. Parts are cut anywhere between characters.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// The text.
    pub text: String,
    /// Whether it is the last.
    pub last: bool,
}

impl Chunk {
    /// Octets of text in one part. JSON may need six octets for one (`\u0000`), and a frame holds 1 MiB.
    pub const OCTETS: usize = 128 << 10;

    /// Cuts a text into parts: at least one, the last marked.
    pub fn all(text: &str) -> impl Iterator<Item = Self> + '_ {
        let mut rest = Some(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let mut end = text.len().min(Self::OCTETS);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let (part, tail) = text.split_at(end);
            rest = (!tail.is_empty()).then_some(tail);
            Some(Self { text: part.to_owned(), last: tail.is_empty() })
        })
    }
}

/// What an import brought.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Imported {
    /// Accounts read.
    pub accounts: u64,
    /// Devices written.
    pub devices: u64,
    /// Devices that the database had already in a newer state, left alone.
    pub kept: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_to_the_text_and_none_breaks_a_character() {
        for length in [0, 1, Chunk::OCTETS / 2, Chunk::OCTETS / 2 + 1, Chunk::OCTETS + 7] {
            // Two octets each, shifted by one: the cut would fall inside a character.
            let text = format!("a{}", "é".repeat(length));
            let parts = Chunk::all(&text).collect::<Vec<_>>();
            assert_eq!(parts.iter().map(|part| part.text.as_str()).collect::<String>(), text);
            let (last, others) = parts.split_last().unwrap();
            assert!(
                last.last && others.iter().all(|part| !part.last && part.text.len() >= Chunk::OCTETS - 1)
            );
        }
        assert_eq!(Chunk::all("").collect::<Vec<_>>(), [Chunk { text: String::new(), last: true }]);
    }
}
