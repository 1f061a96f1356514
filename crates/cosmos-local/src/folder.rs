//! The data folder: which files it has, and how an account starts from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    RegionError, StartError,
    disk::{Disk, DiskError},
    membership::{Membership, plain},
    metadata::Metadata,
    replica::{MAX_REGIONS, Replica, State, seed},
};

/// Where everything of an account is kept.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder(pub(crate) PathBuf);

/// What an account starts with.
pub(crate) struct Opened {
    pub(crate) metadata: Metadata,
    pub(crate) membership: Membership,
    /// One for each member.
    pub(crate) replicas: Vec<Replica>,
}

impl Opened {
    /// An empty account, without a folder.
    pub(crate) fn in_memory(names: &[&str]) -> Result<Self, RegionError> {
        let membership = Membership::new(names.iter().copied())?;
        let empty = |index| Replica::in_memory(index, State::empty(names.len()));
        Ok(Self {
            metadata: Metadata::default(),
            replicas: (0..names.len()).map(empty).collect(),
            membership,
        })
    }
}

impl DataFolder {
    /// The folder of a region.
    pub(crate) fn region(&self, index: usize) -> PathBuf {
        self.0.join(format!("region-{index}"))
    }

    /// The file that says which regions there are.
    pub(crate) fn membership(&self) -> PathBuf {
        self.0.join("regions.json")
    }

    /// The folder of a region that has changes in it, or may have: one that cannot be read is somebody's too.
    fn orphan(&self) -> Option<PathBuf> {
        let mut indexes = 0..MAX_REGIONS as usize;
        let found = indexes.find(|index| match Disk::open(&self.region(*index), *index, 0) {
            Ok((_, state)) => state.applied > 0,
            Err(DiskError::Missing) => false,
            Err(_) => true,
        });
        found.map(|index| self.region(index))
    }

    /// Opens the folder, or makes it, for an account with these regions. Those that are new to it get all that the others
    /// have.
    pub(crate) fn open(&self, names: &[&str]) -> Result<Opened, StartError> {
        let data = |path: PathBuf| move |source| StartError::Data { path, source };
        std::fs::create_dir_all(&self.0).map_err(data(self.0.clone()))?;
        let file = self.0.join("account.json");
        let metadata = Metadata::open(file.clone()).map_err(data(file))?;
        let file = self.membership();
        let known = Membership::open(&file).map_err(data(file.clone()))?;
        let is_new = known.is_none();
        if is_new && let Some(path) = self.orphan() {
            return Err(StartError::Data {
                path: file,
                source: io::Error::new(
                    io::ErrorKind::NotFound,
                    format!(
                        "it is not there, but {} has data or cannot be read; bring it back, or choose another folder",
                        path.display()
                    ),
                ),
            });
        }
        let mut membership = match known {
            Some(known) => known,
            None => Membership::new(names.iter().copied())?,
        };
        let open = |path: &Path, index, regions| match is_new {
            true => {
                let state = State::empty(regions);
                Disk::create(path, index, &state).map(|disk| (disk, state))
            }
            false => Disk::open(path, index, regions),
        };
        let mut opened: Vec<(Disk, usize, State)> = Vec::new();
        for (index, name) in membership.members() {
            if !names.iter().any(|named| plain(named) == plain(name)) {
                return Err(self.left_out(&membership));
            }
            let path = self.region(index);
            let (disk, state) = open(&path, index, membership.count())
                .map_err(|source| StartError::Disk { path, source })?;
            opened.push((disk, index, state));
        }
        for name in names {
            if membership.index(name).is_some() {
                continue;
            }
            let index = membership.join(name)?;
            let sources = opened.iter().map(|(_, index, state)| (*index, state));
            let state = seed(sources, membership.start_of_feed(index))
                .unwrap_or_else(|| State::empty(membership.count()));
            let path = self.region(index);
            let disk = Disk::create(&path, index, &state)
                .map_err(|source| StartError::Disk { path, source })?;
            opened.push((disk, index, state));
        }
        // After the folders of new regions, which so are whole when they count.
        membership.store(&file).map_err(data(file.clone()))?;
        let replicas = opened.into_iter();
        let replicas = replicas.map(|(disk, index, state)| Replica::on_disk(index, state, disk));
        Ok(Opened {
            metadata,
            membership,
            replicas: replicas.collect(),
        })
    }

    fn left_out(&self, membership: &Membership) -> StartError {
        let known: Vec<&str> = membership.members().map(|(_, name)| name).collect();
        StartError::Regions(format!(
            "{} belongs to an account with the regions {}; name all of them, or choose another folder",
            self.0.display(),
            known.join(", ")
        ))
    }
}
