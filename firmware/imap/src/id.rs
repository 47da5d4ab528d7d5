//! Arguments of ID (RFC 2971 §3.1), octet by octet: the largest legal one is over 30 KiB and needs no buffer.
use mail::session::Label;

/// Field/value pairs (RFC 2971 §3.3).
const PAIRS: u8 = 30;
/// Octets of a field's name (RFC 2971 §3.3).
const KEY: u64 = 30;
/// Octets of a value (RFC 2971 §3.3).
const VALUE: u64 = 1024;

/// Reads `NIL` or a list of pairs up to its CRLF, keeping the start of four values.
#[derive(Debug)]
pub(crate) struct Id {
    part: Part,
    pairs: u8,
    /// At most [`KEY`] octets.
    key: heapless::Vec<u8, 30>,
    /// What of a value a label can hold.
    value: heapless::Vec<u8, 64>,
    /// Octets of the present string so far.
    length: u64,
}

/// Where in the grammar the next octet stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// `NIL` or `(`.
    Start,
    /// In a NIL with so many letters read, in place of the whole list or of a value.
    Nil { read: u8, list: bool },
    /// `)` or the first key.
    Open,
    /// A key's first octet.
    Key,
    /// The space between key and value.
    Between,
    /// A value's first octet.
    Value,
    /// Inside a string that is a key or a value.
    Text { key: bool, text: Text },
    /// Behind a value: space or `)`.
    After,
    /// CR.
    End,
    /// LF.
    Ended,
}

/// Where in a string.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Text {
    Quoted,
    Escaped,
    /// Behind `{`: digits, or what follows them.
    Size {
        size: u64,
        digits: bool,
    },
    /// `}` after `+` or `-`.
    Brace {
        size: u64,
    },
    /// CR after `}`.
    Cr {
        size: u64,
        waits: bool,
    },
    /// LF.
    Lf {
        size: u64,
        waits: bool,
    },
    /// So many octets of a literal, at least one.
    Literal {
        left: u64,
    },
}

/// What one octet led to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Read {
    /// Go on.
    More,
    /// The client waits for our go-ahead before its literal.
    Wanted,
    /// The command is complete.
    Complete,
    /// Outside the grammar; this octet was not used. What follows is `left` octets of a literal, then the rest of the line.
    Malformed { left: u64 },
    /// A literal over the limit; this octet was the last of its announcement. It comes unless the client waits.
    TooLarge { size: u64, waits: bool },
}

impl Id {
    pub(crate) const fn new() -> Self {
        Self {
            part: Part::Start,
            pairs: 0,
            key: heapless::Vec::new(),
            value: heapless::Vec::new(),
            length: 0,
        }
    }

    /// Takes the next octet. Complete values go to `label`.
    pub(crate) fn read(&mut self, octet: u8, label: &mut Label) -> Read {
        self.part = match (self.part, octet) {
            (Part::Start, b'(') => Part::Open,
            (Part::Start, b'n' | b'N') => Part::Nil { read: 1, list: true },
            (Part::Value, b'n' | b'N') => Part::Nil { read: 1, list: false },
            (Part::Nil { read: 1, list }, b'i' | b'I') => Part::Nil { read: 2, list },
            (Part::Nil { read: 2, list: false }, b'l' | b'L') => Part::After,
            (Part::Nil { read: 2, list: true }, b'l' | b'L') | (Part::Open | Part::After, b')') => Part::End,
            (Part::After, b' ') if self.pairs < PAIRS => Part::Key,
            (Part::Between, b' ') => Part::Value,
            (Part::Open | Part::Key | Part::Value, b'"' | b'{') => self.open(octet),
            (Part::Text { key, text }, octet) => return self.text(key, text, octet, label),
            (Part::End, b'\r') => Part::Ended,
            (Part::Ended, b'\n') => return Read::Complete,
            _ => return Read::Malformed { left: 0 },
        };
        Read::More
    }

    /// A string begins.
    fn open(&mut self, octet: u8) -> Part {
        let key = self.part != Part::Value;
        if key {
            self.key.clear();
            self.pairs += 1;
        }
        self.value.clear();
        self.length = 0;
        let text = if octet == b'"' { Text::Quoted } else { Text::Size { size: 0, digits: false } };
        Part::Text { key, text }
    }

    fn text(&mut self, key: bool, text: Text, octet: u8, label: &mut Label) -> Read {
        let limit = if key { KEY } else { VALUE };
        let text = match (text, octet) {
            (Text::Quoted, b'"') => return self.close(key, label),
            (Text::Quoted, b'\\') => Text::Escaped,
            (Text::Quoted, 0 | b'\r' | b'\n') => return Read::Malformed { left: 0 },
            (Text::Escaped, b'"' | b'\\') | (Text::Quoted, _) => {
                if self.length == limit {
                    return Read::Malformed { left: 0 };
                }
                self.keep(key, octet);
                Text::Quoted
            }
            (Text::Size { size, .. }, b'0'..=b'9') => Text::Size {
                size: size.saturating_mul(10).saturating_add(u64::from(octet - b'0')),
                digits: true,
            },
            (Text::Size { size, digits: true }, b'+' | b'-') => Text::Brace { size },
            (Text::Size { size, digits: true }, b'}') => Text::Cr { size, waits: true },
            (Text::Brace { size }, b'}') => Text::Cr { size, waits: false },
            (Text::Cr { size, waits }, b'\r') => Text::Lf { size, waits },
            (Text::Lf { size, waits }, b'\n') if size > limit => return Read::TooLarge { size, waits },
            (Text::Lf { size, waits }, b'\n') => {
                if size == 0 {
                    let _ = self.close(key, label);
                } else {
                    self.part = Part::Text { key, text: Text::Literal { left: size } };
                }
                return if waits { Read::Wanted } else { Read::More };
            }
            (Text::Literal { left }, 0) => return Read::Malformed { left },
            (Text::Literal { left }, _) => {
                self.keep(key, octet);
                if left == 1 {
                    return self.close(key, label);
                }
                Text::Literal { left: left - 1 }
            }
            _ => return Read::Malformed { left: 0 },
        };
        self.part = Part::Text { key, text };
        Read::More
    }

    fn keep(&mut self, key: bool, octet: u8) {
        self.length += 1;
        // A key always fits, since its limit was checked; of a value the first octets are enough.
        let _ = if key { self.key.push(octet) } else { self.value.push(octet) };
    }

    /// A string is complete.
    fn close(&mut self, key: bool, label: &mut Label) -> Read {
        if key {
            self.part = Part::Between;
        } else {
            self.part = Part::After;
            let is = |name: &[u8]| self.key.eq_ignore_ascii_case(name);
            if is(b"name") {
                print(&self.value, &mut label.name);
            } else if is(b"version") {
                print(&self.value, &mut label.version);
            } else if is(b"vendor") {
                print(&self.value, &mut label.vendor);
            } else if is(b"os") {
                print(&self.value, &mut label.os);
            }
        }
        Read::More
    }
}

/// The printable form of `value`, cut at a character border: what is not UTF-8 or not printable becomes `?`.
fn print<const N: usize>(value: &[u8], into: &mut heapless::String<N>) {
    into.clear();
    for chunk in value.utf8_chunks() {
        let odd = (!chunk.invalid().is_empty()).then_some('?');
        for character in chunk.valid().chars().chain(odd) {
            let shown = if character.is_control() || is_format(character) { '?' } else { character };
            if into.push(shown).is_err() {
                return;
            }
        }
    }
}

/// Characters that print nothing and change how their neighbours look: they have no place in an alert.
const fn is_format(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::String;

    use super::*;

    fn read(arguments: &[u8]) -> (Label, Read, usize) {
        let (mut id, mut label) = (Id::new(), Label::default());
        for (at, &octet) in arguments.iter().enumerate() {
            match id.read(octet, &mut label) {
                Read::More | Read::Wanted => {}
                other => return (label, other, at),
            }
        }
        (label, Read::More, arguments.len())
    }

    fn label(arguments: &str) -> Label {
        let (label, last, _) = read(arguments.as_bytes());
        assert_eq!(last, Read::Complete, "{arguments}");
        label
    }

    /// RFC 2971 §3.1 and §3.2.
    #[test]
    fn examples_of_the_rfc() {
        let found =
            label("(\"name\" \"sodr\" \"version\" \"19.34\" \"vendor\" \"Pink Floyd Music Limited\")\r\n");
        assert_eq!(
            (&*found.name, &*found.version, &*found.vendor, &*found.os),
            ("sodr", "19.34", "Pink Floyd Music Limited", "")
        );
        assert_eq!(label("NIL\r\n"), Label::default());
        assert_eq!(label("nil\r\n"), Label::default());
        assert_eq!(label("()\r\n"), Label::default());
    }

    #[test]
    fn strings_of_every_form() {
        let found = label(
            "({4}\r\nname {3+}\r\na\r\n \"OS\" \"a\\\"b\\\\c\" \"version\" NIL \"vendor\" {0}\r\n \"x\" \"\")\r\n",
        );
        assert_eq!((&*found.name, &*found.os, &*found.version, &*found.vendor), ("a??", "a\"b\\c", "", ""));
        let (mut id, mut label) = (Id::new(), Label::default());
        let wanted = b"({4}\r\nname {2-}\r\nab {1}\r\nx"
            .iter()
            .filter(|&&octet| id.read(octet, &mut label) == Read::Wanted);
        assert_eq!(wanted.count(), 2);
    }

    /// 30 pairs of 30 and 1,024 octets are legal and must be taken; one more of anything is not.
    #[test]
    fn the_largest_legal_one() {
        let build = |pairs: usize, key: usize, value: usize, literal: bool| {
            let pair = |_| {
                let (key, value) = ("k".repeat(key), "v".repeat(value));
                if literal {
                    format!("{{{}}}\r\n{key} {{{}+}}\r\n{value}", key.len(), value.len())
                } else {
                    format!("\"{key}\" \"{value}\"")
                }
            };
            format!("({})\r\n", (0..pairs).map(pair).collect::<std::vec::Vec<String>>().join(" "))
        };
        for literal in [false, true] {
            let largest = build(30, 30, 1024, literal);
            assert!(largest.len() > 30 * 1054);
            assert_eq!(read(largest.as_bytes()).1, Read::Complete);
            assert!(!matches!(read(build(31, 3, 3, literal).as_bytes()).1, Read::Complete));
            assert!(!matches!(read(build(1, 31, 3, literal).as_bytes()).1, Read::Complete));
            assert!(!matches!(read(build(1, 3, 1025, literal).as_bytes()).1, Read::Complete));
        }
    }

    #[test]
    fn outside_the_grammar() {
        for none in [
            "name",
            "(name x)",
            "(\"name\")",
            "(\"name\" x)",
            "(\"name\"  \"x\")",
            "(\"a\" \"b\" )",
            "( \"a\" \"b\")",
            "((",
            "NIX",
            "(\"a\" (\"b\"))",
            "(NIL \"b\")",
            "() ",
            "(\"a\\n\" \"b\")",
            "(\"a\r\n",
            "({x}",
            "({}",
            "(\"a\" \"\0\")",
        ] {
            assert!(matches!(read(none.as_bytes()).1, Read::Malformed { left: 0 }), "{none}");
        }
        assert_eq!(read(b"({4}\r\nna\0e").1, Read::Malformed { left: 2 });
        assert_eq!(read(b"({31+}\r\n").1, Read::TooLarge { size: 31, waits: false });
        assert_eq!(read(b"({99999999999999999999}\r\n").1, Read::TooLarge { size: u64::MAX, waits: true });
        assert_eq!(read(b"({4}\r\nname {1024}\r\n").1, Read::More);
    }

    #[test]
    fn labels_are_printable_and_cut_at_a_character() {
        let (found, ..) = read(
            &[b"(\"name\" \"", "é".repeat(40).as_bytes(), b"\" \"os\" \"a\x1b[31m\xff\xe2\x80\xae\")\r\n"]
                .concat(),
        );
        assert_eq!(&*found.name, "é".repeat(32));
        assert_eq!(&*found.os, "a?[31m??");
        let (found, ..) = read(&[b"(\"name\" \"x", "é".repeat(40).as_bytes(), b"\")\r\n"].concat());
        assert_eq!(&*found.name, format!("x{}?", "é".repeat(31)));
    }
}
