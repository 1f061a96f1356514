//! The deployable script root.
//!
//! The real host finds functions only in first-level folders beside host.json, and starts the executable that host.json
//! names. This module writes such a root from what is compiled into the executable, so that it can be done anywhere:
//! [`write_package`] for a deployment, [`write_script_root`] for a host on this machine. What is written is then looked
//! at with the eyes of the host, see [`check`].

pub mod check;
pub mod elf;

mod archive;
mod manifest;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use self::{
    check::{Fault, check},
    elf::Elf,
    manifest::Manifest,
};
use crate::functions::Function;

/// Name of the executable in the script root, which `customHandler` in host.json names.
pub const EXECUTABLE: &str = "geo-events";

/// The host's configuration.
pub const HOST_JSON: &str = include_str!("../host.json");

/// Settings for `func start`, with the public keys of emulators.
pub const LOCAL_SETTINGS: &str = include_str!("../local.settings.json");

/// What `func azure functionapp publish` leaves out.
const FUNCIGNORE: &str = "local.settings.json\n.funcignore\n.geo-events-package\n";

/// What to write besides the folder itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Also write a zip file beside the folder.
    pub zip: bool,
    /// Also write local.settings.json into the folder.
    pub local_settings: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The folder.
    pub dir: PathBuf,
    /// The zip file, if asked for.
    pub zip: Option<PathBuf>,
    /// How many functions the host will find.
    pub functions: usize,
    /// What the deployer should know.
    pub warnings: Vec<String>,
}

/// Why there is no package.
#[derive(Debug, Error)]
pub enum PackageError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The folder has content of somebody else.
    #[error(
        "{0} is not empty and was not written by `geo-events package`; name another folder, or empty it"
    )]
    Foreign(PathBuf),
    /// The folder is a file.
    #[error("{0} is not a folder")]
    NoFolder(PathBuf),
    /// The executable would not start in Azure.
    #[error(
        "{path} cannot run in Azure: {source}; build it for Linux and name it with --executable"
    )]
    Executable {
        /// The executable.
        path: PathBuf,
        /// What is wrong with it.
        source: elf::ElfError,
    },
    /// The zip file cannot be written.
    #[error("cannot write {path}: {source}")]
    Zip {
        /// The zip file.
        path: PathBuf,
        /// Why it failed.
        source: zip::result::ZipError,
    },
    /// The host would not accept what was written.
    #[error("the Functions host would refuse this script root:{}", list(.0))]
    Refused(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// Names a path in an I/O error.
fn on<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> PackageError + 'p {
    move |source| PackageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes the script root for a deployment: the executable is a copy, and is checked to be one for Linux.
///
/// A folder that was written by this function before is written anew; files that others have put there stay, but are
/// not zipped.
///
/// # Errors
/// See [`PackageError`].
pub fn write_package(
    dir: &Path,
    executable: &Path,
    options: Options,
) -> Result<Written, PackageError> {
    let elf = Elf::read(executable).map_err(|source| PackageError::Executable {
        path: executable.to_owned(),
        source,
    })?;
    Manifest::clear(dir)?;

    let mut deployed = write_definitions(dir)?;
    let target = dir.join(EXECUTABLE);
    fs::copy(executable, &target).map_err(on("copy the executable to", &target))?;
    make_executable(&target)?;
    deployed.push(EXECUTABLE.into());

    let mut local = vec![PathBuf::from(".funcignore")];
    write(dir, &local[0], FUNCIGNORE)?;
    if options.local_settings {
        let path = PathBuf::from("local.settings.json");
        write(dir, &path, LOCAL_SETTINGS)?;
        local.push(path);
    }
    Manifest::write(dir, deployed.iter().chain(&local))?;

    let functions = check(dir).map_err(PackageError::Refused)?;
    let zip = options
        .zip
        .then(|| archive::write(dir, &deployed))
        .transpose()?;
    Ok(Written {
        dir: dir.to_owned(),
        zip,
        functions,
        warnings: elf.warnings(),
    })
}

/// Writes the script root for a host on this machine into an empty folder: the executable is linked, not copied, where
/// that is possible.
///
/// # Errors
/// See [`PackageError`].
pub fn write_script_root(dir: &Path, executable: &Path) -> Result<(), PackageError> {
    Manifest::clear(dir)?;
    let mut files = write_definitions(dir)?;
    let target = dir.join(EXECUTABLE);
    link(executable, &target).map_err(on("link the executable to", &target))?;
    files.push(EXECUTABLE.into());
    Manifest::write(dir, &files)?;
    check(dir).map_err(PackageError::Refused)?;
    Ok(())
}

/// Writes host.json and the functions.
fn write_definitions(dir: &Path) -> Result<Vec<PathBuf>, PackageError> {
    let mut files = vec![PathBuf::from("host.json")];
    write(dir, &files[0], HOST_JSON)?;
    for function in Function::ALL {
        let path = Path::new(function.name()).join("function.json");
        write(dir, &path, function.definition())?;
        files.push(path);
    }
    Ok(files)
}

fn write(dir: &Path, relative: &Path, content: &str) -> Result<(), PackageError> {
    let path = dir.join(relative);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(on("create the folder", parent))?;
    }
    fs::write(&path, content).map_err(on("write", &path))
}

/// A hard link stays what it is when the executable is built anew; where there can be none, a symbolic link or a copy.
fn link(executable: &Path, target: &Path) -> io::Result<()> {
    if fs::hard_link(executable, target).is_ok() {
        return Ok(());
    }
    #[cfg(unix)]
    if std::os::unix::fs::symlink(executable, target).is_ok() {
        return Ok(());
    }
    fs::copy(executable, target).map(drop)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), PackageError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(on("make executable", path))
}

/// Elsewhere every file can be executed; the mode inside the zip file is set in any case.
#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<(), PackageError> {
    Ok(())
}
