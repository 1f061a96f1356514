//! What a folder got from us: the list that tells our files from those of others.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{PackageError, on};

/// The file that holds the list, one relative path per line.
pub(super) const FILE: &str = ".geo-events-package";

/// The files that were written into a folder.
pub(super) struct Manifest(());

impl Manifest {
    /// Creates the folder, or removes from it what was written before.
    pub(super) fn clear(dir: &Path) -> Result<(), PackageError> {
        match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return fs::create_dir_all(dir).map_err(on("create the folder", dir));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(PackageError::NoFolder(dir.to_owned()));
            }
            Err(error) => return Err(on("read the folder", dir)(error)),
            Ok(mut entries) => {
                if entries.next().is_none() {
                    return Ok(());
                }
            }
        }
        let list = dir.join(FILE);
        let content = match fs::read_to_string(&list) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PackageError::Foreign(dir.to_owned()));
            }
            Err(error) => return Err(on("read", &list)(error)),
        };
        for relative in content
            .lines()
            .map(Path::new)
            .filter(|path| stays_inside(path))
        {
            let path = dir.join(relative);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(on("remove", &path)(error)),
            }
            if let Some(parent) = path.parent().filter(|parent| *parent != dir) {
                // A folder with files of others in it stays; it is not empty, and this fails.
                let _ = fs::remove_dir(parent);
            }
        }
        fs::remove_file(&list).map_err(on("remove", &list))
    }

    /// Writes the list.
    pub(super) fn write<'p>(
        dir: &Path,
        files: impl IntoIterator<Item = &'p PathBuf>,
    ) -> Result<(), PackageError> {
        let path = dir.join(FILE);
        let content: String = files
            .into_iter()
            .map(|file| format!("{}\n", file.display()))
            .collect();
        fs::write(&path, content).map_err(on("write", &path))
    }
}

/// The list is a file like any other: nothing that it names outside of the folder is touched.
fn stays_inside(path: &Path) -> bool {
    path.components().count() > 0
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}
