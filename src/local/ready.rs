//! What `up` prints when everything stands: a table for people, or one line of JSON for programs.

use std::{
    io::{Write as _, stdout},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use super::cloud::Cloud;

/// The ready line. URLs have no trailing slash, but for the Cosmos DB endpoints in `settings`, which are as the SDKs take them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    event: &'static str,
    dashboard: String,
    /// Whether the dashboard has a page, or the control API only.
    page: bool,
    regions: Vec<ReadyRegion>,
    /// For `local.settings.json`; the SignalR Service is the first region's.
    settings: ReadySettings,
    #[serde(skip)]
    functions: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadyRegion {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    functions: Option<String>,
    cosmos: String,
    signalr: String,
    signalr_connection_string: String,
}

/// Names are those of the app settings.
#[derive(Debug, Serialize)]
struct ReadySettings {
    #[serde(rename = "CosmosDBConnection")]
    cosmos_db_connection: String,
    #[serde(rename = "AzureSignalRConnectionString")]
    azure_signalr_connection_string: String,
}

impl Ready {
    pub(super) fn new(cloud: &Cloud, dashboard: String, page: bool) -> Self {
        let regions: Vec<_> = cloud
            .regions()
            .iter()
            .map(|region| ReadyRegion {
                name: region.name.clone(),
                functions: region
                    .functions
                    .as_ref()
                    .map(|functions| functions.url().to_owned()),
                cosmos: region.cosmos.trim_end_matches('/').to_owned(),
                signalr: region.signalr.endpoint(),
                signalr_connection_string: region.signalr.connection_string(),
            })
            .collect();
        let functions = cloud
            .regions()
            .first()
            .and_then(|region| region.functions.as_ref())
            .map_or_else(Vec::new, |functions| {
                functions
                    .infos()
                    .iter()
                    .map(|info| match &info.url {
                        Some(url) => format!("{}: [{}] {url}", info.name, info.methods.join(",")),
                        None => format!("{}: {}", info.name, info.trigger),
                    })
                    .collect()
            });
        Self {
            event: "ready",
            dashboard,
            page,
            settings: ReadySettings {
                cosmos_db_connection: cloud.account().connection_string(),
                azure_signalr_connection_string: regions
                    .first()
                    .map(|region| region.signalr_connection_string.clone())
                    .unwrap_or_default(),
            },
            regions,
            functions,
        }
    }

    /// Prints the line for programs.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(self).context("cannot write the ready line as JSON")?;
        line.push(b'\n');
        let mut out = stdout().lock();
        out.write_all(&line)
            .and_then(|()| out.flush())
            .context("cannot print the ready line")
    }

    /// Prints the table for people.
    pub(super) fn print_text(&self, elapsed: Duration) -> anyhow::Result<()> {
        stdout()
            .lock()
            .write_all(self.text(elapsed).as_bytes())
            .context("cannot print the table of regions")
    }

    fn text(&self, elapsed: Duration) -> String {
        let width = self
            .regions
            .iter()
            .map(|region| region.name.len())
            .max()
            .unwrap_or_default();
        let mut text = String::from("\n");
        for region in &self.regions {
            let functions = region.functions.as_deref().unwrap_or("(none)");
            text += &format!(
                "  {:width$}   functions {functions}   cosmos {}   signalr {}\n",
                region.name, region.cosmos, region.signalr
            );
        }
        if self.functions.is_empty() {
            text += "\nSettings for local.settings.json:\n";
            text += &format!(
                "  \"CosmosDBConnection\": \"{}\"\n",
                self.settings.cosmos_db_connection
            );
            for region in &self.regions {
                text += &format!(
                    "  \"AzureSignalRConnectionString\": \"{}\"   ({})\n",
                    region.signalr_connection_string, region.name
                );
            }
        } else {
            text += &format!(
                "\nFunctions of {} (the other regions have the same):\n",
                self.regions[0].name
            );
            for function in &self.functions {
                text += &format!("  {function}\n");
            }
        }
        let what = if self.page { "Open" } else { "Control API at" };
        text += &format!(
            "\nReady in {:.1} s. {what} {} (Ctrl-C stops everything).\n",
            elapsed.as_secs_f64(),
            self.dashboard
        );
        text
    }
}
