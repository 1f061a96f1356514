//! Which regions there are, and in which order each of them prefers the others.
//!
//! The one truth is `infra/regions.json`, which the deployment reads too.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// Most regions one machine brings up: every region is a host, a handler process, a Cosmos DB replica and a SignalR Service.
pub(super) const MAX_REGIONS: usize = 8;

/// Longest name of a region, in characters.
const MAX_REGION_NAME: usize = 64;

const REGIONS_FILE: &str = include_str!("../../infra/regions.json");

/// The regions of one account, in account order (the first is the hub).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topology {
    regions: Vec<Region>,
}

/// One region and its preferences.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Region {
    /// Azure display name, such as `West US`.
    pub(super) name: String,
    /// Every region of the account, nearest first; the first is the region itself.
    pub(super) preferred_locations: Vec<String>,
}

/// The regions of `infra/regions.json`: the default of `--regions`. None if the file cannot be read, which
/// [`Topology::select`] complains about.
pub(super) fn default_regions() -> Vec<String> {
    let names = |file: Topology| file.regions.into_iter().map(|region| region.name);
    Topology::of_file().map_or_else(|_| Vec::new(), |file| names(file).collect())
}

impl Topology {
    fn of_file() -> anyhow::Result<Self> {
        serde_json::from_str(REGIONS_FILE).context("infra/regions.json is not valid")
    }

    /// The regions named by `names`, in that order.
    ///
    /// Preferences come from `infra/regions.json`; a region that is not listed there prefers itself, then the others as given.
    pub(super) fn select(names: &[String]) -> anyhow::Result<Self> {
        let known = Self::of_file()?;
        let names = names
            .iter()
            .map(|name| known.canonical_name(name))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if names.len() > MAX_REGIONS {
            bail!(
                "{} regions were named; the most is {MAX_REGIONS}",
                names.len()
            );
        }
        let mut seen = BTreeSet::new();
        for name in &names {
            if !seen.insert(normalised(name)) {
                bail!("region {name:?} is named twice; name each region once");
            }
        }
        let regions = names
            .iter()
            .map(|name| Region {
                name: name.clone(),
                preferred_locations: known.preferences(name, &names),
            })
            .collect();
        Ok(Self { regions })
    }

    /// The regions in account order; never empty.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn canonical_name(&self, name: &str) -> anyhow::Result<String> {
        let name = name.trim();
        let valid = !name.is_empty()
            && name.len() <= MAX_REGION_NAME
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ');
        if !valid {
            bail!(
                "{name:?} is not the name of a region; use Azure's display names, such as --regions \"West US,North Europe\""
            );
        }
        Ok(self.find(name).map_or(name, |known| &known.name).to_owned())
    }

    fn find(&self, name: &str) -> Option<&Region> {
        self.regions
            .iter()
            .find(|region| normalised(&region.name) == normalised(name))
    }

    fn preferences(&self, name: &str, selected: &[String]) -> Vec<String> {
        let listed = self
            .find(name)
            .map(|region| region.preferred_locations.as_slice())
            .unwrap_or_default();
        let mut order = vec![name.to_owned()];
        for candidate in listed
            .iter()
            .filter(|listed| selected.contains(listed))
            .chain(selected)
        {
            if !order.contains(candidate) {
                order.push(candidate.clone());
            }
        }
        order
    }
}

/// Azure compares region names without case and spaces.
fn normalised(name: &str) -> String {
    name.chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(names: &str) -> anyhow::Result<Topology> {
        Topology::select(&names.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_default_is_the_whole_file() {
        let file = Topology::of_file().expect("regions.json is valid");
        let default = Topology::select(&default_regions()).expect("the default is valid");
        assert_eq!(default, file);
    }

    #[test]
    fn every_region_prefers_itself_and_knows_all_others() {
        let topology = select("southeastasia,Mars North,west us").expect("three regions");
        let order: Vec<_> = topology
            .regions()
            .iter()
            .map(|r| r.preferred_locations.join(","))
            .collect();
        assert_eq!(
            order,
            [
                "Southeast Asia,West US,Mars North",
                "Mars North,Southeast Asia,West US",
                "West US,Southeast Asia,Mars North"
            ]
        );
    }

    #[test]
    fn bad_names_are_refused_with_what_to_do() {
        for (names, says) in [
            ("", "display names"),
            ("West US,", "display names"),
            ("a/b", "display names"),
            ("West US,westus", "twice"),
            ("a,b,c,d,e,f,g,h,i", "the most is 8"),
        ] {
            let error = select(names).expect_err(names).to_string();
            assert!(error.contains(says), "{names:?}: {error}");
        }
    }
}
