//! What is wrong with a settings document, where, and how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::reader::Mistake;

/// One mistake in a settings document.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct SettingsError {
    /// The document, as it was named to us.
    pub file: PathBuf,
    /// From 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters; 0 when the file as a whole is meant.
    pub column: usize,
    /// How many characters of that line are meant; at least 1.
    pub width: usize,
    /// The line itself, for showing; empty when the file as a whole is meant.
    pub source_line: String,
    /// The key in dotted form, such as `backends.main.imap.address`; empty when there is none.
    pub key: String,
    /// What sort of mistake.
    pub kind: Kind,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// How to mend it, one sentence without a full stop.
    pub mend: String,
}

/// Sorts of mistakes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Not TOML.
    Syntax,
    /// A key that nothing reads.
    UnknownKey,
    /// A key that must be there.
    Missing,
    /// A value of the wrong type or form.
    Value,
    /// Two values that cannot both hold.
    Contradiction,
    /// A file or folder that cannot be used.
    Unreachable,
}

impl Kind {
    /// A lower-case word, for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::Missing => "missing",
            Self::Value => "value",
            Self::Contradiction => "contradiction",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for SettingsError {
    /// `FILE:LINE:COLUMN: key: what; mend`, in one line for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.what, self.mend)
    }
}

impl SettingsError {
    /// Several lines for people: the place, the line with carets under what is meant, and the mend.
    pub fn explain(&self) -> String {
        use fmt::Write as _;
        let mut text = format!("{}:", self.file.display());
        // Writing to a String cannot fail.
        if self.line > 0 {
            let _ = write!(text, "{}:{}:", self.line, self.column);
        }
        let _ = writeln!(text, " {}", self.what);
        if self.line > 0 {
            let number = self.line.to_string();
            // Tabs are kept so that the carets stand below their characters.
            let indent = self.source_line.chars().take(self.column.saturating_sub(1));
            let indent = indent.map(|c| if c == '\t' { '\t' } else { ' ' }).collect::<String>();
            let _ = writeln!(text, " {number} | {}", self.source_line);
            let _ = writeln!(text, " {:1$} | {indent}{2}", "", number.len(), "^".repeat(self.width));
        }
        let _ = writeln!(text, "  mend: {}", self.mend);
        text
    }

    /// About the file as a whole.
    pub(crate) fn whole(file: PathBuf, what: impl Into<String>, mend: impl Into<String>) -> Self {
        let (what, mend) = (what.into(), mend.into());
        let (key, source_line) = (String::new(), String::new());
        Self { file, line: 0, column: 0, width: 1, source_line, key, kind: Kind::Unreachable, what, mend }
    }

    /// Turns octet offsets into line and column.
    pub(crate) fn at(file: PathBuf, text: &str, mistake: Mistake) -> Self {
        let Mistake { span, key, kind, what, mend } = mistake;
        let Place { line, column, width, source_line } = Place::find(text, &span);
        Self { file, line, column, width, source_line: source_line.to_owned(), key, kind, what, mend }
    }
}

struct Place<'t> {
    line: usize,
    column: usize,
    width: usize,
    source_line: &'t str,
}

impl<'t> Place<'t> {
    fn find(text: &'t str, span: &Range<usize>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        let rest = text.get(start..).unwrap_or_default();
        let source_line = rest.lines().next().unwrap_or_default();
        let meant = text.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
        Self { line, column, width: meant.chars().count().max(1), source_line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, span: Range<usize>) -> SettingsError {
        let mistake = Mistake {
            span,
            key: "a".into(),
            kind: Kind::Value,
            what: "wrong".into(),
            mend: "write b".into(),
        };
        SettingsError::at("x.toml".into(), text, mistake)
    }

    #[test]
    fn places_count_characters_from_one() {
        let text = "é = 1\nbö = 22\n";
        let at = text.find("22").unwrap();
        let error = error(text, at..at + 2);
        assert_eq!((error.line, error.column, error.width), (2, 6, 2));
        assert_eq!(error.to_string(), "x.toml:2:6: a: wrong; write b");
        assert_eq!(error.explain(), "x.toml:2:6: wrong\n 2 | bö = 22\n   |      ^^\n  mend: write b\n");
    }

    #[test]
    fn a_place_at_the_very_end_is_still_a_place() {
        let error = error("a = \n", 5..5);
        assert_eq!((error.line, error.column, error.width), (2, 1, 1));
        let beyond = Place::find("a", &(7..9));
        assert_eq!((beyond.line, beyond.column), (1, 2));
    }
}
