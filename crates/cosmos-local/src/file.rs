//! Files that are replaced as a whole.

use std::{fs::File, io, path::Path};

use serde::Serialize;

/// Writes a file anew as JSON: after a crash it is the old one or the new one, and the new one once this has returned.
pub(crate) fn replace(file: &Path, content: &impl Serialize) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec_pretty(content)?)?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)?;
    match file.parent() {
        // Names are kept by their folder; elsewhere than on Unix a folder cannot be opened.
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
