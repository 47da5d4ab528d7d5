//! Lists in parts, so that none outgrows a frame.

use serde::{Deserialize, Serialize};

/// Some rows of a list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub rows: Vec<T>,
    /// Whether a further frame with rows of the same list follows.
    pub more: bool,
}

impl<T> Page<T> {
    /// Rows in one page: no row is over 4 KiB as JSON, and a frame holds 1 MiB.
    pub const ROWS: usize = 250;

    /// Joins the next page of the same list.
    pub fn join(&mut self, next: Self) {
        self.rows.extend(next.rows);
        self.more = next.more;
    }

    /// Cuts a list into pages: at least one, and `more` on all but the last.
    pub fn all(rows: Vec<T>) -> impl Iterator<Item = Self> {
        let mut rows = rows.into_iter();
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let rows_now = rows.by_ref().take(Self::ROWS).collect::<Vec<_>>();
            over = rows.len() == 0;
            Some(Self { rows: rows_now, more: !over })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_page_says_so() {
        let shape = |rows: usize| {
            Page::all(vec![0; rows]).map(|page| (page.rows.len(), page.more)).collect::<Vec<_>>()
        };
        assert_eq!(shape(0), [(0, false)]);
        assert_eq!(shape(250), [(250, false)]);
        assert_eq!(shape(600), [(250, true), (250, true), (100, false)]);
    }
}
