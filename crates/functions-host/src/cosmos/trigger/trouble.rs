//! What currently hinders a listener: logged when it begins and when it ends, shown meanwhile.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use crate::binding::ListenerBoard;

/// The open troubles of one listener, by the part of it that has them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    function: Arc<str>,
    board: ListenerBoard,
    // Held only to look and to change; never across an await.
    open: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Trouble {
    pub(crate) fn new(function: &str, board: ListenerBoard) -> Self {
        Self {
            function: function.into(),
            board,
            open: Arc::default(),
        }
    }

    /// `part` has trouble. Only the first report of a row is logged as a warning.
    pub(crate) fn is(&self, part: &str, error: &dyn Display) {
        let text = error.to_string();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.insert(part.to_owned(), text.clone()).is_none() {
            tracing::warn!(function = %self.function, part, error = %text, "change feed trouble; trying again until it is over");
        } else {
            tracing::debug!(function = %self.function, part, error = %text, "still in trouble");
        }
        self.board.trouble(Some(text));
    }

    /// `part` works (again).
    pub(crate) fn over(&self, part: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.remove(part).is_some() {
            tracing::info!(function = %self.function, part, "change feed trouble is over");
            self.board.trouble(open.values().next().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_shows_a_trouble_until_the_last_one_is_over() {
        let board = ListenerBoard::default();
        let shown = || board.status().trouble;
        let trouble = Trouble::new("Notifications", board.clone());
        trouble.over("a");
        assert_eq!(shown(), None);
        trouble.is("a", &"first");
        trouble.is("b", &"second");
        trouble.is("b", &"third");
        trouble.over("a");
        assert_eq!(shown().as_deref(), Some("third"));
        trouble.over("b");
        assert_eq!(shown(), None);
    }
}
