//! Reads a TOML tree key by key and keeps every mistake with its place, so that one look mends a whole file.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A mistake before its place is turned into line and column.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
    pub(crate) what: String,
    pub(crate) mend: String,
}

/// What one reading of a document gathers.
#[derive(Default)]
pub(crate) struct Report(RefCell<Vec<Mistake>>);

impl Report {
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.0.into_inner()
    }
}

/// One value with its place.
pub(crate) struct Value<'a> {
    key: String,
    node: &'a Spanned<DeValue<'a>>,
    report: &'a Report,
}

/// A value that knows how it is written.
pub(crate) trait Read: Sized {
    /// `None` after a note in the report.
    fn read(value: &Value<'_>) -> Option<Self>;
}

/// A table whose keys are fixed. [`Table::finish`] tells what was never asked for.
pub(crate) struct Table<'a> {
    key: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
    report: &'a Report,
}

impl<'a> Value<'a> {
    /// Notes a mistake in this value; always `None`, for `return`.
    pub(crate) fn wrong<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.report.0.borrow_mut().push(Mistake {
            span: self.node.span(),
            key: self.key.clone(),
            what: what.into(),
            mend: mend.into(),
        });
        None
    }

    /// The text of a string, or a note that it is none, or one that holds nothing fit for a name.
    pub(crate) fn text(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.node.get_ref() else {
            return self.wrong_type("a text", "put it in double quotes");
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            return self
                .wrong("this text is empty or holds control characters", "write printable characters");
        }
        Some(text)
    }

    /// A table with fixed keys, read to its end.
    pub(crate) fn table<T>(&self, read: impl FnOnce(&mut Table<'a>) -> Option<T>) -> Option<T> {
        let DeValue::Table(entries) = self.node.get_ref() else {
            return self.wrong_type("a table", "write { key = value }");
        };
        let (key, span) = (self.key.clone(), self.node.span());
        let mut table = Table { key, span, entries, known: Vec::new(), report: self.report };
        let read = read(&mut table);
        table.finish();
        read
    }

    /// The elements of a list, or the one value that stands for a list of one.
    pub(crate) fn list<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let DeValue::Array(array) = self.node.get_ref() else { return Some(vec![read(self)?]) };
        if array.is_empty() {
            return self.wrong("this list is empty", "write at least one, or remove the key");
        }
        let element = |(at, node)| Value { key: format!("{}[{at}]", self.key), node, report: self.report };
        // All of them, so that each wrong element is told.
        let read = array.iter().enumerate().map(|e| read(&element(e))).collect::<Vec<_>>();
        read.into_iter().collect()
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let list = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        match found {
            Some((_, meaning)) => Some(*meaning),
            None => self.wrong(format!("{text:?} is not known here"), format!("write one of {list}")),
        }
    }

    fn wrong_type<T>(&self, wanted: &str, mend: &str) -> Option<T> {
        let is = match self.node.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(format!("{wanted} is wanted here, and this is {is}"), mend)
    }
}

impl<'a> Table<'a> {
    pub(crate) fn document(document: &'a Spanned<DeTable<'a>>, report: &'a Report) -> Self {
        let entries = document.get_ref();
        Self { key: String::new(), span: 0..0, entries, known: Vec::new(), report }
    }

    /// Whether a key is there, whatever it holds.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    /// The raw value of a key.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let node = self.entries.get(key)?;
        Some(Value { key: self.dotted(key), node, report: self.report })
    }

    /// A key that may be left out; also `None` after a mistake, which the report has.
    pub(crate) fn optional<T: Read>(&mut self, key: &'static str) -> Option<T> {
        T::read(&self.value(key)?)
    }

    /// A key that must be there.
    pub(crate) fn required<T: Read>(&mut self, key: &'static str, mend: &str) -> Option<T> {
        match self.value(key) {
            Some(value) => T::read(&value),
            None => self.missing(key, mend),
        }
    }

    /// A section that may be left out.
    pub(crate) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'a>) -> Option<T>,
    ) -> Option<T> {
        self.value(key)?.table(read)
    }

    /// Notes that a key is missing; always `None`.
    pub(crate) fn missing<T>(&self, key: &str, mend: &str) -> Option<T> {
        let what = format!("the key `{key}` is missing");
        self.note(self.span.clone(), self.dotted(key), what, mend.to_owned())
    }

    /// Notes every key that was not asked for.
    pub(crate) fn finish(&self) {
        for (key, _) in self.entries {
            let name: &str = AsRef::<str>::as_ref(key.get_ref());
            if !self.known.contains(&name) {
                let place =
                    if self.key.is_empty() { "at the top".into() } else { format!("in [{}]", self.key) };
                let mend = format!("remove it; known {place}: {}", self.known.join(", "));
                let what = format!("there is no key `{name}` {place}");
                self.note::<()>(key.span(), self.dotted(name), what, mend);
            }
        }
    }

    fn note<T>(&self, span: Range<usize>, key: String, what: String, mend: String) -> Option<T> {
        self.report.0.borrow_mut().push(Mistake { span, key, what, mend });
        None
    }

    fn dotted(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }
}

impl Read for bool {
    fn read(value: &Value<'_>) -> Option<Self> {
        match value.node.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            _ => value.wrong_type("true or false", "write true or false, without quotes"),
        }
    }
}

impl Read for String {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.text().map(str::to_owned)
    }
}

impl Read for u32 {
    fn read(value: &Value<'_>) -> Option<Self> {
        let DeValue::Integer(number) = value.node.get_ref() else {
            return value.wrong_type("a whole number", "write digits, without quotes");
        };
        match Self::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(number),
            Err(_) => value.wrong("this number does not fit", format!("write 0 to {}", Self::MAX)),
        }
    }
}

impl Read for Vec<String> {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.list(String::read)
    }
}

impl Read for Duration {
    /// Whole seconds or minutes, as the settings document writes them: `"15s"`, `"2m"`.
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text()?;
        let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
        let seconds = digits.parse::<u32>().ok().and_then(|number| match unit {
            "s" => Some(number),
            "m" => number.checked_mul(60),
            _ => None,
        });
        match seconds {
            Some(seconds) if seconds > 0 => Some(Self::from_secs(seconds.into())),
            _ => value.wrong(format!("{text:?} is no time"), "write it as \"15s\" or \"2m\", at least 1s"),
        }
    }
}
