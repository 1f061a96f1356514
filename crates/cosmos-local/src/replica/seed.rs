//! What a new region starts with: all that the others have.

use std::{ops::Deref, sync::Arc};

use super::{staging::Staged, state::State};
use crate::record::Record;

/// The state of a new region: that of one source, and what the others have accepted beyond it.
///
/// So it has everything that any of the sources had accepted when this was called, tombstones and versions in conflict
/// included, and has seen exactly that: links go on from there, and nothing comes twice. Logs are not to be cut down
/// meanwhile. Its feed begins with the items of the first source in the order in which they changed there.
///
/// Positions of the feed start after `shift`. A region that had been in the account before takes the last position of its
/// former life: whoever comes with a continuation from that time is then given everything again, and misses nothing.
pub(crate) fn seed<S: Deref<Target = State>>(
    sources: impl IntoIterator<Item = (usize, S)>,
    shift: u64,
) -> Option<State> {
    let mut sources = sources.into_iter();
    let (_, first) = sources.next()?;
    let mut state = first.copy(shift);
    drop(first);
    for (region, source) in sources {
        let missing = source.log.range(state.seen_of(region) + 1..);
        let missing: Vec<Arc<Record>> = missing.map(|(_, record)| Arc::clone(record)).collect();
        drop(source);
        let mut staged = Staged::new(&state);
        missing.into_iter().for_each(|record| staged.apply(record));
        let delta = staged.delta;
        state.publish(delta);
    }
    Some(state)
}
