//! Whether an executable can start in Azure.
//!
//! Azure runs custom handlers on x86-64 Linux. An executable that is linked to the C library of the machine it was built
//! on needs one that is at least as new there, and fails at its start if it is not; a static one runs anywhere. The
//! difference is in the program headers: a static executable asks for no interpreter (System V ABI, chapter 5,
//! "Program Header").

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use thiserror::Error;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const X86_64: u16 = 62;
const AARCH64: u16 = 183;
const PT_INTERP: u32 = 3;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// Most program headers that are looked at; executables have about a dozen.
const MAX_PROGRAM_HEADERS: u16 = 256;

/// Longest path of an interpreter that is read, in bytes.
const MAX_INTERPRETER: u64 = 4096;

/// What the headers of an executable say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// The machine's number, `e_machine`.
    machine: u16,
    /// The dynamic linker it asks for; none when it is static.
    interpreter: Option<String>,
}

/// Why a file is no executable for Linux.
#[derive(Debug, Error)]
pub enum ElfError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a Linux executable (ELF)")]
    NotElf,
    /// It is for a machine of 32 bits, or a big-endian one.
    #[error("it is not an executable for a 64-bit little-endian machine")]
    Class,
    /// Its headers make no sense.
    #[error("its ELF headers are damaged")]
    Damaged,
}

impl Elf {
    /// Reads the headers of an executable.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn read(path: &Path) -> Result<Self, ElfError> {
        Self::from_reader(File::open(path)?)
    }

    fn from_reader(mut file: impl Read + Seek) -> Result<Self, ElfError> {
        let mut header = Vec::with_capacity(HEADER);
        file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        if !header.starts_with(MAGIC) {
            return Err(ElfError::NotElf);
        }
        if header.len() < HEADER {
            return Err(ElfError::Damaged);
        }
        if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
            return Err(ElfError::Class);
        }
        let machine = u16_at(&header, 18);
        let (offset, size, count) = (
            u64_at(&header, 32),
            u16_at(&header, 54),
            u16_at(&header, 56),
        );
        if usize::from(size) != PROGRAM_HEADER || count > MAX_PROGRAM_HEADERS {
            return Err(ElfError::Damaged);
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut headers = vec![0; usize::from(count) * PROGRAM_HEADER];
        file.read_exact(&mut headers).map_err(damaged)?;
        let interpreter = headers
            .chunks_exact(PROGRAM_HEADER)
            .find(|header| u32_at(header, 0) == PT_INTERP);
        let interpreter = interpreter
            .map(|header| {
                let mut text = Vec::new();
                file.seek(SeekFrom::Start(u64_at(header, 8)))?;
                file.take(u64_at(header, 32).min(MAX_INTERPRETER))
                    .read_to_end(&mut text)?;
                Ok::<_, ElfError>(
                    String::from_utf8_lossy(&text)
                        .trim_end_matches('\0')
                        .to_owned(),
                )
            })
            .transpose()?;
        Ok(Self {
            machine,
            interpreter,
        })
    }

    /// What may keep the executable from starting in Azure, one clear sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.machine != X86_64 {
            let machine = match self.machine {
                AARCH64 => "aarch64".to_owned(),
                number => format!("machine number {number}"),
            };
            warnings.push(format!(
                "the executable is for {machine}; Azure Functions runs custom handlers on x86-64 \
                 (build with --target x86_64-unknown-linux-musl)"
            ));
        }
        if let Some(interpreter) = &self.interpreter {
            warnings.push(format!(
                "the executable is linked dynamically ({interpreter}): it starts only where the C library is at least \
                 as new as here; build it statically with --target x86_64-unknown-linux-musl, or with \
                 RUSTFLAGS='-C target-feature=+crt-static'"
            ));
        }
        warnings
    }
}

fn damaged(error: io::Error) -> ElfError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ElfError::Damaged
    } else {
        ElfError::Io(error)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Cursor;

    use super::*;

    /// An ELF file with one program header.
    fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut file = vec![0; HEADER + PROGRAM_HEADER];
        file[..4].copy_from_slice(MAGIC);
        file[4] = CLASS_64;
        file[5] = LITTLE_ENDIAN;
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        file[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        if let Some(path) = interpreter {
            let end = file.len() as u64;
            let header = &mut file[HEADER..];
            header[..4].copy_from_slice(&PT_INTERP.to_le_bytes());
            header[8..16].copy_from_slice(&end.to_le_bytes());
            header[32..40].copy_from_slice(&(path.len() as u64 + 1).to_le_bytes());
            file.extend_from_slice(path.as_bytes());
            file.push(0);
        }
        file
    }

    fn read(file: Vec<u8>) -> Result<Elf, ElfError> {
        Elf::from_reader(Cursor::new(file))
    }

    #[test]
    fn a_static_executable_for_azure_needs_no_word() {
        assert_eq!(
            read(elf(X86_64, None)).unwrap().warnings(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_dynamic_one_and_another_machine_are_warned_of() {
        let warnings = read(elf(AARCH64, Some("/lib/ld-linux-aarch64.so.1")))
            .unwrap()
            .warnings();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("aarch64"), "{warnings:?}");
        assert!(
            warnings[1].contains("(/lib/ld-linux-aarch64.so.1)"),
            "{warnings:?}"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(matches!(
            read(b"#!/bin/sh\n".to_vec()),
            Err(ElfError::NotElf)
        ));
        assert!(matches!(read(Vec::new()), Err(ElfError::NotElf)));
        assert!(matches!(read(MAGIC.to_vec()), Err(ElfError::Damaged)));
        let mut file = elf(X86_64, None);
        file.truncate(HEADER + 10);
        assert!(matches!(read(file), Err(ElfError::Damaged)));
        let mut file = elf(X86_64, None);
        file[4] = 1;
        assert!(matches!(read(file), Err(ElfError::Class)));
    }
}
