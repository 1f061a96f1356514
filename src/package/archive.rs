//! The zip file of a script root.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipWriter, result::ZipError, write::SimpleFileOptions};

use super::{EXECUTABLE, PackageError, on};

/// Writes `dir`'s `files` into `dir`.zip. The same files always give the same bytes: times are left out, and the
/// executable has the mode that Linux needs even when this runs elsewhere.
pub(super) fn write(dir: &Path, files: &[PathBuf]) -> Result<PathBuf, PackageError> {
    let mut name = dir.components().collect::<PathBuf>().into_os_string();
    name.push(".zip");
    let path = PathBuf::from(name);
    let file = File::create(&path).map_err(on("create", &path))?;
    let failed = |source: ZipError| PackageError::Zip {
        path: path.clone(),
        source,
    };

    let mut zip = ZipWriter::new(BufWriter::new(file));
    for relative in files {
        let mode = if relative == Path::new(EXECUTABLE) {
            0o755
        } else {
            0o644
        };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(mode);
        zip.start_file(slashes(relative), options).map_err(failed)?;
        let source = dir.join(relative);
        let mut content = File::open(&source).map_err(on("read", &source))?;
        io::copy(&mut content, &mut zip).map_err(on("zip", &source))?;
    }
    let file = zip.finish().map_err(failed)?;
    file.into_inner()
        .map_err(|error| on("write", &path)(error.into_error()))?
        .sync_all()
        .map_err(on("write", &path))?;
    Ok(path)
}

/// Zip files name their entries with slashes on every system.
fn slashes(path: &Path) -> String {
    path.components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
