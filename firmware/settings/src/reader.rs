//! Reads a parsed TOML tree key by key, keeps every mistake instead of stopping at the first, and knows which keys
//! were asked for, so that what was not is an unknown key.
//!
//! serde's derive would stop at the first mistake and could not say where a value stands once it is plain; an
//! operator on a serial console wants all of them, with their places, in one go.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Kind;

/// A mistake before its place is turned into line and column.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) what: String,
    pub(crate) mend: String,
}

/// What one reading of a document gathers.
#[derive(Default)]
pub(crate) struct Report {
    /// Stands for sections that are not there.
    empty: DeTable<'static>,
    mistakes: RefCell<Vec<Mistake>>,
    /// The folder that relative paths start from.
    base: PathBuf,
    /// Keys asked for and not there: what the example lacks, if it lacks any. For 50,000 accounts this would be long.
    #[cfg(test)]
    absent: RefCell<Vec<String>>,
}

impl Report {
    pub(crate) fn new(base: &Path) -> Self {
        Self { base: base.to_path_buf(), ..Self::default() }
    }

    pub(crate) fn push(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    #[cfg(test)]
    pub(crate) fn absent(&self) -> Vec<String> {
        self.absent.borrow().clone()
    }
}

/// Finds a key or value again once the document has become plain values; the nearest table if it is not there.
pub(crate) fn locate(document: &Spanned<DeTable<'_>>, keys: &[&str]) -> Range<usize> {
    let mut span = document.span();
    let mut table = document.get_ref();
    let mut keys = keys.iter();
    while let Some(key) = keys.next() {
        let Some(mut value) = table.get(*key) else { return span };
        span = value.span();
        while let DeValue::Array(array) = value.get_ref() {
            let index = keys.next().and_then(|key| key.trim_matches(['[', ']']).parse::<usize>().ok());
            let Some(element) = index.and_then(|index| array.get(index)) else { return span };
            value = element;
            span = value.span();
        }
        let DeValue::Table(inner) = value.get_ref() else { return span };
        table = inner;
    }
    span
}

/// Where a value stands: the keys that lead to it.
pub(crate) type Keys = Vec<String>;

/// `backends.main.imap`, quoting what is not a bare key.
pub(crate) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let bare =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_[]".contains(&b));
    let parts = path.iter().map(|key| {
        let key = key.as_ref();
        if bare(key) { key.to_owned() } else { format!("{key:?}") }
    });
    parts.collect::<Vec<_>>().join(".")
}

/// One value with its place.
pub(crate) struct Value<'a> {
    path: Keys,
    node: &'a Spanned<DeValue<'a>>,
    report: &'a Report,
}

impl<'a> Value<'a> {
    pub(crate) fn get(&self) -> &'a DeValue<'a> {
        self.node.get_ref()
    }

    /// Notes a value of the wrong type or form; always `None`, for `return`.
    pub(crate) fn wrong<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.report.push(Mistake {
            span: self.node.span(),
            key: dotted(&self.path),
            kind: Kind::Value,
            what: what.into(),
            mend: mend.into(),
        });
        None
    }

    /// Notes a value that cannot hold beside another one; always `None`.
    pub(crate) fn contradiction<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.report.push(Mistake {
            span: self.node.span(),
            key: dotted(&self.path),
            kind: Kind::Contradiction,
            what: what.into(),
            mend: mend.into(),
        });
        None
    }

    /// Notes a value of the wrong TOML type.
    pub(crate) fn wrong_type<T>(&self, wanted: &str, mend: &str) -> Option<T> {
        self.wrong(format!("{wanted} is wanted here, and this is {}", kind_of(self.get())), mend)
    }

    /// The text of a string, or a note that it is none.
    pub(crate) fn text(&self, wanted: &str, mend: &str) -> Option<&'a str> {
        match self.get() {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type(wanted, mend),
        }
    }

    /// The elements of an array.
    pub(crate) fn elements(&self) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(array) = self.get() else { return None };
        let element = |(at, node)| Value { path: self.under(&format!("[{at}]")), node, report: self.report };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// As a table whose keys are fixed.
    pub(crate) fn table(&self) -> Option<Table<'a>> {
        match self.get() {
            DeValue::Table(entries) => Some(Table {
                path: self.path.clone(),
                span: self.node.span(),
                entries,
                known: Vec::new(),
                report: self.report,
            }),
            _ => self.wrong_type("a table", &format!("write a section [{}], or {{ … }}", dotted(&self.path))),
        }
    }

    /// The entries of a table whose keys are names of the owner's choosing.
    pub(crate) fn entries(&self) -> Option<Vec<Entry<'a>>> {
        let DeValue::Table(table) = self.get() else {
            return self.wrong_type("a table", &format!("write a section [{}.NAME]", dotted(&self.path)));
        };
        let entry = |(key, node): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a str = AsRef::<str>::as_ref(key.get_ref());
            Entry {
                name,
                span: key.span(),
                value: Value { path: self.under(name), node, report: self.report },
            }
        };
        Some(table.iter().map(entry).collect())
    }

    pub(crate) fn base(&self) -> &'a Path {
        &self.report.base
    }

    fn under(&self, key: &str) -> Keys {
        self.path.iter().cloned().chain([key.to_owned()]).collect()
    }
}

/// One entry of a table with free names.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    span: Range<usize>,
    pub(crate) value: Value<'a>,
}

impl Entry<'_> {
    /// Notes that the name itself is not of the right form; always `None`.
    pub(crate) fn wrong_name<T>(&self, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.value.report.push(self.mistake(Kind::Value, what, mend));
        None
    }

    /// A mistake at the name.
    pub(crate) fn mistake(&self, kind: Kind, what: impl Into<String>, mend: impl Into<String>) -> Mistake {
        let key = dotted(&self.value.path);
        Mistake { span: self.span.clone(), key, kind, what: what.into(), mend: mend.into() }
    }
}

/// A table with fixed keys. [`Table::finish`] tells what was never asked for.
pub(crate) struct Table<'a> {
    path: Keys,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
    report: &'a Report,
}

/// A value that knows how it is written.
pub(crate) trait Read: Sized {
    /// `None` after a note in the report.
    fn read(value: &Value<'_>) -> Option<Self>;
}

impl<'a> Table<'a> {
    pub(crate) fn document(document: &'a Spanned<DeTable<'a>>, report: &'a Report) -> Self {
        let (span, entries) = (document.span(), document.get_ref());
        Self { path: Vec::new(), span, entries, known: Vec::new(), report }
    }

    /// The raw value of a key.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect::<Vec<_>>();
        if let Some(node) = self.entries.get(key) {
            return Some(Value { path, node, report: self.report });
        }
        #[cfg(test)]
        self.report.absent.borrow_mut().push(dotted(&path));
        None
    }

    /// A key that may be left out; also `None` after a mistake, which the report has.
    pub(crate) fn optional<T: Read>(&mut self, key: &'static str) -> Option<T> {
        T::read(&self.value(key)?)
    }

    /// A key with a default, which also stands in after a mistake.
    pub(crate) fn or<T: Read>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A key that must be there.
    pub(crate) fn required<T: Read>(&mut self, key: &'static str, mend: &str) -> Option<T> {
        match self.value(key) {
            Some(value) => T::read(&value),
            None => self.missing(key, mend),
        }
    }

    /// A section as it stands; absent, an empty one.
    pub(crate) fn open(&mut self, key: &'static str) -> Table<'a> {
        let table = self.value(key).and_then(|value| value.table());
        table.unwrap_or_else(|| Table {
            path: self.path.iter().cloned().chain([key.to_owned()]).collect(),
            span: self.span.clone(),
            entries: &self.report.empty,
            known: Vec::new(),
            report: self.report,
        })
    }

    /// Notes that a key is missing.
    pub(crate) fn missing<T>(&self, key: &str, mend: &str) -> Option<T> {
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect::<Vec<_>>();
        self.report.push(Mistake {
            span: self.span.clone(),
            key: dotted(&path),
            kind: Kind::Missing,
            what: format!("the key `{key}` is missing"),
            mend: mend.to_owned(),
        });
        None
    }

    /// A section; absent, it is read as empty, so that its defaults apply.
    pub(crate) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'a>) -> T) -> T {
        let mut table = self.open(key);
        let section = read(&mut table);
        table.finish();
        section
    }

    /// A section with free names; absent, it has no entries.
    pub(crate) fn entries(&mut self, key: &'static str) -> Vec<Entry<'a>> {
        self.value(key).and_then(|value| value.entries()).unwrap_or_default()
    }

    /// Notes every key that was not asked for.
    pub(crate) fn finish(&self) {
        for (key, _) in self.entries {
            let name: &str = AsRef::<str>::as_ref(key.get_ref());
            if self.known.contains(&name) {
                continue;
            }
            let place = if self.path.is_empty() {
                "at the top".into()
            } else {
                format!("in [{}]", dotted(&self.path))
            };
            let known = self.known.join(", ");
            let mend = nearest(name, &self.known).map_or_else(
                || format!("remove it; known {place}: {known}"),
                |near| format!("did you mean `{near}`? Known {place}: {known}"),
            );
            self.report.push(Mistake {
                span: key.span(),
                key: dotted(&self.path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>()),
                kind: Kind::UnknownKey,
                what: format!("there is no key `{name}` {place}"),
                mend,
            });
        }
    }
}

impl Read for bool {
    fn read(value: &Value<'_>) -> Option<Self> {
        match value.get() {
            DeValue::Boolean(yes) => Some(*yes),
            _ => value.wrong_type("true or false", "write true or false, without quotes"),
        }
    }
}

impl Read for String {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text("a text", "put it in double quotes")?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return value
                .wrong("this text is empty or holds control characters", "write printable characters");
        }
        Some(text.to_owned())
    }
}

impl Read for PathBuf {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text("a path", "put it in double quotes")?;
        if text.is_empty() || text.contains('\0') {
            return value
                .wrong("this path is empty", "write a path, absolute or starting at this file's folder");
        }
        Some(value.base().join(text))
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        let Some(elements) = value.elements() else {
            return value.wrong_type("a list", "put it in [ ], also when it is only one");
        };
        // All of them, so that each wrong element is told.
        let read = elements.iter().map(T::read).collect::<Vec<_>>();
        read.into_iter().collect()
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Option<T> {
    let list = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let text = value.text("a word", &format!("write one of {list}"))?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*meaning);
    }
    let names = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    let mend = nearest(text, &names).map_or_else(
        || format!("write one of {list}"),
        |near| format!("did you mean {near:?}? One of {list}"),
    );
    value.wrong(format!("{text:?} is not known here"), mend)
}

/// What a TOML value is, in words.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known word that `word` is probably a slip of the pen for.
pub(crate) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let most = (word.chars().count() / 3).max(1);
    let best =
        known.iter().map(|known| (distance(word, known), *known)).min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, _)| *distance <= most).map(|(_, known)| known)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let to = to.replace('_', "-").chars().collect::<Vec<_>>();
    let from = from.to_lowercase().replace('_', "-").chars().collect::<Vec<_>>();
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (at, have) in from.iter().enumerate() {
        let mut row = vec![at + 1];
        for (column, want) in to.iter().enumerate() {
            let replace = rows[at][column] + usize::from(have != want);
            let mut cost = replace.min(rows[at][column + 1] + 1).min(row[column] + 1);
            if at > 0 && column > 0 && *have == to[column - 1] && from[at - 1] == *want {
                cost = cost.min(rows[at - 1][column - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_find_their_key() {
        let known = ["hostname", "data", "default-domain"];
        assert_eq!(nearest("hostnmae", &known), Some("hostname"));
        assert_eq!(nearest("default_domain", &known), Some("default-domain"));
        assert_eq!(nearest("Data", &known), Some("data"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        assert_eq!((distance("ab", "ba"), distance("abc", "abc"), distance("", "abc")), (1, 0, 3));
    }

    #[test]
    fn keys_are_quoted_where_toml_wants_it() {
        assert_eq!(dotted(&["domains", "example.net", "aliases"]), "domains.\"example.net\".aliases");
        assert_eq!(dotted(&["tls", "certificates", "[0]", "key"]), "tls.certificates.[0].key");
    }
}
