//! Which port every local server listens on. `0` lets the operating system choose.

use anyhow::bail;

use super::topology::MAX_REGIONS;

/// Ports for one dashboard, one account endpoint and, per region, three servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortPlan {
    /// Dashboard and control API.
    pub(super) dashboard: u16,
    /// The account-wide Cosmos DB endpoint.
    pub(super) account: u16,
    /// Per region, in account order.
    pub(super) regions: Vec<RegionPorts>,
}

/// The ports of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RegionPorts {
    pub(super) functions: u16,
    pub(super) cosmos: u16,
    pub(super) signalr: u16,
}

/// What the tools of Azure use on a laptop; each region adds its index.
const USUAL_DASHBOARD: u16 = 4280;
const USUAL_ACCOUNT: u16 = 8090;
const USUAL_FUNCTIONS: u16 = 7071;
const USUAL_COSMOS: u16 = 8081;
const USUAL_SIGNALR: u16 = 8888;

impl PortPlan {
    pub(super) fn usual(regions: usize) -> Self {
        Self {
            dashboard: USUAL_DASHBOARD,
            account: USUAL_ACCOUNT,
            regions: (0..regions as u16)
                .map(|i| RegionPorts {
                    functions: USUAL_FUNCTIONS + i,
                    cosmos: USUAL_COSMOS + i,
                    signalr: USUAL_SIGNALR + i,
                })
                .collect(),
        }
    }

    pub(super) fn auto(regions: usize) -> Self {
        Self {
            dashboard: 0,
            account: 0,
            regions: vec![
                RegionPorts {
                    functions: 0,
                    cosmos: 0,
                    signalr: 0
                };
                regions
            ],
        }
    }

    /// `base` is the dashboard, `base + 1` the account, then three ports per region.
    pub(super) fn from_base(base: u16, regions: usize) -> anyhow::Result<Self> {
        let needed = 2 + 3 * MAX_REGIONS as u16;
        if base.checked_add(needed).is_none() {
            bail!("--port-base {base} leaves too few ports above it; {needed} are needed");
        }
        Ok(Self {
            dashboard: base,
            account: base + 1,
            regions: (0..regions as u16)
                .map(|i| {
                    let first = base + 2 + 3 * i;
                    RegionPorts {
                        functions: first,
                        cosmos: first + 1,
                        signalr: first + 2,
                    }
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(plan: &PortPlan) -> Vec<u16> {
        let regions = plan
            .regions
            .iter()
            .flat_map(|r| [r.functions, r.cosmos, r.signalr]);
        [plan.dashboard, plan.account]
            .into_iter()
            .chain(regions)
            .collect()
    }

    #[test]
    fn no_two_servers_share_a_port() {
        for plan in [
            PortPlan::usual(MAX_REGIONS),
            PortPlan::from_base(20_000, MAX_REGIONS).expect("fits"),
        ] {
            let ports = all(&plan);
            assert_eq!(
                ports.iter().collect::<BTreeSet<_>>().len(),
                ports.len(),
                "{plan:?}"
            );
        }
    }

    #[test]
    fn auto_leaves_every_port_to_the_system() {
        assert!(all(&PortPlan::auto(3)).iter().all(|port| *port == 0));
    }

    #[test]
    fn a_base_too_high_is_refused() {
        assert!(PortPlan::from_base(65_530, 1).is_err());
    }
}
