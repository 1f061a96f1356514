//! Offers: the throughput that somebody wanted for a database or container. It is kept and shown, and limits nothing;
//! what limits a region is its [`crate::budget`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::container::rid;

/// Least throughput, in request units per second: fixed, and the most of what scales by itself.
const LEAST: u64 = 400;
const LEAST_SCALING: u64 = 1000;

/// Throughput of one database or container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Unique in the account.
    number: u32,
    /// Self link of what it is about.
    resource: String,
    pub(crate) resource_id: String,
    throughput: Throughput,
    version: u32,
    ts: i64,
}

/// Request units per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Throughput {
    Fixed(u64),
    /// Up to so many.
    Scaling(u64),
}

impl Throughput {
    /// That of a container for which nobody has said anything.
    pub(crate) const LEAST: Self = Self::Fixed(LEAST);

    /// Reads the headers of a create; the error is for the client.
    pub(crate) fn of_headers(
        fixed: Option<&str>,
        scaling: Option<&str>,
    ) -> Result<Option<Self>, String> {
        if let Some(settings) = scaling {
            let settings: Value = serde_json::from_str(settings)
                .map_err(|_| format!("the autopilot settings {settings:?} are not JSON"))?;
            return Self::scaling(&settings).map(Some);
        }
        fixed
            .map(|text| Self::fixed(text.trim().parse().unwrap_or_default()))
            .transpose()
    }

    /// Reads the content of an offer.
    fn of_content(content: &Value) -> Result<Self, String> {
        match content.get("offerAutopilotSettings") {
            Some(settings) if !settings.is_null() => Self::scaling(settings),
            _ => Self::fixed(content["offerThroughput"].as_u64().unwrap_or_default()),
        }
    }

    fn fixed(units: u64) -> Result<Self, String> {
        if units < LEAST || !units.is_multiple_of(100) {
            return Err(format!(
                "a throughput is at least {LEAST} request units per second, in hundreds"
            ));
        }
        Ok(Self::Fixed(units))
    }

    fn scaling(settings: &Value) -> Result<Self, String> {
        let most = settings["maxThroughput"].as_u64().unwrap_or_default();
        if most < LEAST_SCALING || !most.is_multiple_of(1000) {
            return Err(format!(
                "the most of a throughput that scales is at least {LEAST_SCALING} request units per second, in thousands"
            ));
        }
        Ok(Self::Scaling(most))
    }
}

impl Offer {
    pub(crate) fn new(
        number: u32,
        resource: String,
        resource_id: String,
        throughput: Throughput,
        ts: i64,
    ) -> Self {
        Self {
            number,
            resource,
            resource_id,
            throughput,
            version: 1,
            ts,
        }
    }

    pub(crate) fn rid(&self) -> String {
        rid(&self.number.to_be_bytes())
    }

    /// Takes the throughput of another body for this offer.
    pub(crate) fn replace(&mut self, body: &Map<String, Value>, ts: i64) -> Result<(), String> {
        let content = body.get("content").unwrap_or(&Value::Null);
        self.throughput = Throughput::of_content(content)?;
        self.version += 1;
        self.ts = ts;
        Ok(())
    }

    pub(crate) fn view(&self) -> Value {
        let rid = self.rid();
        let units = match self.throughput {
            Throughput::Fixed(units) => units,
            // It starts with a tenth of the most.
            Throughput::Scaling(most) => most / 10,
        };
        let mut content = json!({
            "offerThroughput": units, "offerIsRUPerMinuteThroughputEnabled": false,
            "offerMinimumThroughputParameters": {"maxThroughputEverProvisioned": units, "maxConsumedStorageEverInKB": 0},
        });
        if let Throughput::Scaling(most) = self.throughput {
            content["offerAutopilotSettings"] = json!({"maxThroughput": most});
        }
        json!({
            "id": rid, "_rid": rid, "_self": format!("offers/{rid}/"), "_etag": format!("\"o-{}-{}\"", self.number, self.version),
            "_ts": self.ts, "resource": self.resource, "offerResourceId": self.resource_id, "offerType": "Invalid",
            "offerVersion": "V2", "content": content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_throughputs_are_throughputs() {
        let settings = r#"{"maxThroughput":4000}"#;
        assert_eq!(Throughput::of_headers(None, None), Ok(None));
        assert_eq!(
            Throughput::of_headers(Some("400"), None),
            Ok(Some(Throughput::Fixed(400)))
        );
        assert_eq!(
            Throughput::of_headers(None, Some(settings)),
            Ok(Some(Throughput::Scaling(4000)))
        );
        for bad in ["", "300", "401", "-1", "x"] {
            assert!(Throughput::of_headers(Some(bad), None).is_err(), "{bad}");
        }
        for bad in ["", "{}", r#"{"maxThroughput":1500}"#] {
            assert!(Throughput::of_headers(None, Some(bad)).is_err(), "{bad}");
        }
    }
}
