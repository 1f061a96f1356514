//! `function.json`: from text to a [`FunctionDefinition`].
//!
//! Rules for names, directions and triggers: `Azure/azure-functions-host:
//! src/WebJobs.Script/Host/HostFunctionMetadataProvider.cs`, `…/Utility.cs`. Which properties are `%SETTING%`-resolved, and
//! their names per extension generation: the extensions named in [`crate::binding`].
//!
//! Local choice: the real extension ignores a property of the other generation silently and fails later or never; here it
//! fails the function at load with the name to write instead.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::binding::{
    AuthLevel, CosmosItemInput, CosmosOutput, CosmosQueryInput, CosmosTrigger, FeedStart,
    Generation, HttpTrigger, InputBinding, OutputBinding, SignalRConnectionInfo, SignalROutput,
    Trigger,
};
use crate::expression::{SqlTemplate, Template};
use crate::fields::Fields;
use crate::retry::RetryPolicy;
use crate::settings::Settings;

/// File name.
pub const FUNCTION_JSON: &str = "function.json";

/// Binding types this host implements, for messages.
const KNOWN_TYPES: &str =
    "httpTrigger, http, cosmosDBTrigger, cosmosDB, signalRConnectionInfo, signalR";

/// Properties that extension 4.x renamed: (3.x, 4.x).
const RENAMED: [(&str, &str); 8] = [
    ("connectionStringSetting", "connection"),
    ("collectionName", "containerName"),
    ("leaseConnectionStringSetting", "leaseConnection"),
    ("leaseCollectionName", "leaseContainerName"),
    (
        "createLeaseCollectionIfNotExists",
        "createLeaseContainerIfNotExists",
    ),
    ("leasesCollectionThroughput", "leasesContainerThroughput"),
    ("leaseCollectionPrefix", "leaseContainerPrefix"),
    ("collectionThroughput", "containerThroughput"),
];

/// Properties of extension 3.x that 4.x removed, and what this host does instead of them in either generation.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    (
        "useMultipleWriteLocations",
        "writes go to the first available preferred region of a multi-region-write account by themselves",
    ),
    ("checkpointInterval", "each batch is checkpointed"),
    ("checkpointDocumentCount", "each batch is checkpointed"),
    ("useDefaultJsonSerialization", "documents pass unchanged"),
];

/// One function, ready to be invoked.
#[derive(Debug, Clone)]
pub struct FunctionDefinition {
    /// Folder name.
    pub name: String,
    /// What starts it.
    pub trigger: Trigger,
    /// What is read before the handler is called, in order.
    pub inputs: Vec<InputBinding>,
    /// What is applied after the handler replied.
    pub outputs: Vec<OutputBinding>,
    /// Its own or the host's retry policy; `None` for triggers that are not retried.
    pub retry: Option<RetryPolicy>,
    /// The parsed document, for the admin endpoints.
    pub config: Box<RawValue>,
    /// Switched off by `AzureWebJobs.<name>.Disabled`.
    pub disabled: bool,
    /// What the reader should know and the function can live with.
    pub warnings: Vec<String>,
}

impl FunctionDefinition {
    /// The name of the `http` output, if there is one.
    #[must_use]
    pub fn http_output(&self) -> Option<&str> {
        self.outputs.iter().find_map(|output| match output {
            OutputBinding::Http { name } => Some(name.as_str()),
            OutputBinding::Cosmos(_) | OutputBinding::SignalR(_) => None,
        })
    }
}

/// What the parser needs to know beside the text.
#[derive(Debug, Clone, Copy)]
pub struct FunctionContext<'a> {
    /// For `%SETTING%`.
    pub settings: &'a Settings,
    /// From the extension bundle; `None` = no bundle, hence only HTTP bindings.
    pub generation: Option<Generation>,
    /// The host's default policy.
    pub retry: Option<RetryPolicy>,
}

/// Whether a folder can be a function: `^[a-z][a-z0-9_-]{0,127}$` ignoring case, and not `host`.
#[must_use]
pub fn is_function_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && name.len() <= 128
        && !name.eq_ignore_ascii_case("host")
}

/// Whether a binding can have this name: `^[a-zA-Z][a-zA-Z0-9]{0,127}$`, or `$return` for outputs.
fn is_binding_name(name: &str, output: bool) -> bool {
    if name == "$return" {
        return output;
    }
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric())
        && name.len() <= 128
}

/// Reads one function.json.
///
/// # Errors
/// One sentence that names the binding and the property and says what to do. The function does not load; others may.
pub fn parse(
    function: &str,
    text: &str,
    context: FunctionContext<'_>,
) -> Result<FunctionDefinition, String> {
    let text = text.trim_start_matches('\u{feff}');
    let document: Value = serde_json::from_str(text)
        .map_err(|error| format!("{FUNCTION_JSON} is not JSON: {error}"))?;
    let root =
        Fields::of(&document).ok_or_else(|| format!("{FUNCTION_JSON} must hold a JSON object"))?;
    let config = RawValue::from_string(text.trim().to_owned())
        .map_err(|error| format!("{FUNCTION_JSON} is not JSON: {error}"))?;

    let mut warnings = Vec::new();
    if root.get("disabled").is_some() {
        warnings.push(format!(
            "`disabled` in {FUNCTION_JSON} has no effect; set `AzureWebJobs.{function}.Disabled=true` instead"
        ));
    }

    let bindings = match root.get("bindings") {
        Some(Value::Array(bindings)) if !bindings.is_empty() => bindings,
        _ => return Err("`bindings` must be an array with at least a trigger".into()),
    };
    let mut trigger = None;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut names: Vec<String> = Vec::new();
    for (index, value) in bindings.iter().enumerate() {
        let mut reader = BindingReader::new(index, value, context)?;
        let name = reader.name.clone();
        if names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Err(format!(
                "two bindings are named `{name}`; names must differ"
            ));
        }
        let read = reader
            .read()
            .map_err(|problem| format!("binding `{name}` ({}): {problem}", reader.kind))?;
        match read {
            Binding::Trigger(found) if trigger.is_some() => {
                return Err(format!(
                    "binding `{}` is a second trigger; a function has exactly one",
                    found.name()
                ));
            }
            Binding::Trigger(found) => trigger = Some(found),
            Binding::Input(input) => inputs.push(input),
            Binding::Output(output) => outputs.push(output),
        }
        warnings.extend(
            reader
                .warnings
                .drain(..)
                .map(|warning| format!("binding `{name}`: {warning}")),
        );
        names.push(name);
    }
    let trigger =
        trigger.ok_or("no trigger: one binding must have a type that ends in `Trigger`")?;
    if outputs
        .iter()
        .filter(|output| matches!(output, OutputBinding::Http { .. }))
        .count()
        > 1
    {
        return Err("more than one `http` output; a response can be shaped once".into());
    }

    let own = root.get("retry").map(RetryPolicy::parse).transpose()?;
    let retry = match trigger {
        Trigger::Cosmos(_) => own.or(context.retry),
        Trigger::Http(_) => {
            if own.is_some() {
                warnings.push("`retry` is ignored: an httpTrigger is not retried".into());
            }
            None
        }
    };

    let disabled = context
        .settings
        .flag(&format!("AzureWebJobs.{function}.Disabled"))
        || context
            .settings
            .flag(&format!("AzureWebJobs_{function}_Disabled"));
    Ok(FunctionDefinition {
        name: function.to_owned(),
        trigger,
        inputs,
        outputs,
        retry,
        config,
        disabled,
        warnings,
    })
}

enum Binding {
    Trigger(Trigger),
    Input(InputBinding),
    Output(OutputBinding),
}

/// Reads one element of `bindings`.
struct BindingReader<'a> {
    kind: String,
    name: String,
    direction: Direction,
    fields: Fields<'a>,
    context: FunctionContext<'a>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl<'a> BindingReader<'a> {
    fn new(index: usize, value: &'a Value, context: FunctionContext<'a>) -> Result<Self, String> {
        let at = |problem: String| format!("bindings[{index}]: {problem}");
        let fields = Fields::of(value).ok_or_else(|| at("must be an object".into()))?;
        let kind = fields
            .text("type")
            .map_err(at)?
            .ok_or_else(|| at(format!("`type` is missing: one of {KNOWN_TYPES}")))?;
        let direction = match fields.text("direction").map_err(at)? {
            None => Direction::In,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "in" => Direction::In,
                "out" => Direction::Out,
                "inout" => {
                    return Err(at(
                        "direction `inout` is not supported for any binding of this host".into(),
                    ));
                }
                _ => {
                    return Err(at(format!(
                        "`direction` must be `in` or `out`, not {text:?}"
                    )));
                }
            },
        };
        let name = fields
            .text("name")
            .map_err(at)?
            .ok_or_else(|| at(format!("the {kind} binding has no `name`")))?;
        if !is_binding_name(&name, direction == Direction::Out) {
            return Err(at(format!(
                "`name` {name:?} is not valid: a letter, then letters and digits only (no `_`, no `-`), or `$return` for an output"
            )));
        }
        Ok(Self {
            kind,
            name,
            direction,
            fields,
            context,
            warnings: Vec::new(),
        })
    }

    fn read(&mut self) -> Result<Binding, String> {
        use Direction::{In, Out};
        for unsupported in ["dataType", "cardinality"] {
            if self.fields.get(unsupported).is_some() {
                return Err(format!(
                    "`{unsupported}` is not supported by this host; leave it out"
                ));
            }
        }
        let kind = self.kind.to_ascii_lowercase();
        if kind.ends_with("trigger") && self.direction == Out {
            return Err("a trigger's `direction` is `in`".into());
        }
        match (kind.as_str(), self.direction) {
            ("httptrigger", _) => self.http_trigger().map(Binding::Trigger),
            ("http", Out) => Ok(Binding::Output(OutputBinding::Http {
                name: self.name.clone(),
            })),
            ("http", In) => Err("`http` is an output; write `\"direction\": \"out\"`".into()),
            ("cosmosdbtrigger", _) => self.cosmos_trigger().map(Binding::Trigger),
            ("cosmosdb", In) => self.cosmos_input().map(Binding::Input),
            ("cosmosdb", Out) => self.cosmos_output().map(Binding::Output),
            ("signalrconnectioninfo", In) => self.signalr_info().map(Binding::Input),
            ("signalrconnectioninfo", Out) => {
                Err("`signalRConnectionInfo` is an input; write `\"direction\": \"in\"`".into())
            }
            ("signalr", Out) => self.signalr_output().map(Binding::Output),
            ("signalr", In) => Err("`signalR` is an output; write `\"direction\": \"out\"`".into()),
            _ => Err(format!(
                "type {:?} is not supported by this host; it knows {KNOWN_TYPES}",
                self.kind
            )),
        }
    }

    fn http_trigger(&self) -> Result<Trigger, String> {
        let auth_level = match self.fields.text("authLevel")? {
            None => AuthLevel::Function,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "anonymous" => AuthLevel::Anonymous,
                "function" => AuthLevel::Function,
                "admin" => AuthLevel::Admin,
                _ => {
                    return Err(format!(
                        "`authLevel` must be anonymous, function or admin, not {text:?}"
                    ));
                }
            },
        };
        let methods = self
            .fields
            .texts("methods")?
            .unwrap_or_default()
            .iter()
            .map(|method| method.to_ascii_uppercase())
            .collect();
        Ok(Trigger::Http(HttpTrigger {
            name: self.name.clone(),
            route: self.fields.text("route")?.filter(|route| !route.is_empty()),
            methods,
            auth_level,
        }))
    }

    fn cosmos_trigger(&mut self) -> Result<Trigger, String> {
        let generation = self.cosmos_generation()?;
        let named = |old, new| {
            if generation == Generation::Four {
                new
            } else {
                old
            }
        };
        let connection =
            self.connection(named("connectionStringSetting", "connection"), "CosmosDB")?;
        let lease_connection = self.connection(
            named("leaseConnectionStringSetting", "leaseConnection"),
            &connection,
        )?;
        let database = self.required("databaseName")?;
        let container = self.required(named("collectionName", "containerName"))?;
        let lease_database = self
            .resolved("leaseDatabaseName")?
            .unwrap_or_else(|| database.clone());
        let lease_container = self
            .resolved(named("leaseCollectionName", "leaseContainerName"))?
            .unwrap_or_else(|| "leases".to_owned());
        if (&connection, &database, &container)
            == (&lease_connection, &lease_database, &lease_container)
        {
            return Err(format!(
                "the monitored container and the lease container are both `{database}/{container}`; they must differ"
            ));
        }
        let from_beginning = self.fields.flag("startFromBeginning")?.unwrap_or(false);
        let start = match self.resolved("startFromTime")? {
            Some(_) if from_beginning => {
                return Err("`startFromBeginning` and `startFromTime` exclude each other".into());
            }
            Some(text) => FeedStart::Time(text.parse().map_err(|_| {
                format!("`startFromTime` must be a date with offset such as \"2026-03-01T10:00:00Z\", not {text:?}")
            })?),
            None if from_beginning => FeedStart::Beginning,
            None => FeedStart::Now,
        };
        let max_items = match self.fields.integer("maxItemsPerInvocation")? {
            // The extension's own "not set".
            None | Some(-1) => None,
            Some(count) => Some(
                u32::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| {
                        format!("`maxItemsPerInvocation` must be more than 0, not {count}")
                    })?,
            ),
        };
        let trigger = CosmosTrigger {
            name: self.name.clone(),
            connection,
            database,
            container,
            lease_connection,
            lease_database,
            lease_container,
            create_lease_container: self
                .fields
                .flag(named(
                    "createLeaseCollectionIfNotExists",
                    "createLeaseContainerIfNotExists",
                ))?
                .unwrap_or(false),
            lease_container_throughput: self.fields.count(named(
                "leasesCollectionThroughput",
                "leasesContainerThroughput",
            ))?,
            lease_prefix: self
                .resolved(named("leaseCollectionPrefix", "leaseContainerPrefix"))?
                .unwrap_or_default(),
            feed_poll_delay: self.millis("feedPollDelay", CosmosTrigger::FEED_POLL_DELAY)?,
            lease_renew_interval: self
                .millis("leaseRenewInterval", CosmosTrigger::LEASE_RENEW_INTERVAL)?,
            lease_acquire_interval: self.millis(
                "leaseAcquireInterval",
                CosmosTrigger::LEASE_ACQUIRE_INTERVAL,
            )?,
            lease_expiration_interval: self.millis(
                "leaseExpirationInterval",
                CosmosTrigger::LEASE_EXPIRATION_INTERVAL,
            )?,
            max_items,
            start,
            preferred_locations: self.preferred_locations()?,
        };
        if trigger.lease_renew_interval >= trigger.lease_expiration_interval {
            return Err(
                "`leaseRenewInterval` must be shorter than `leaseExpirationInterval`, or every lease expires".into(),
            );
        }
        Ok(Trigger::Cosmos(trigger))
    }

    fn cosmos_input(&mut self) -> Result<InputBinding, String> {
        let generation = self.cosmos_generation()?;
        let named = |old, new| {
            if generation == Generation::Four {
                new
            } else {
                old
            }
        };
        let connection =
            self.connection(named("connectionStringSetting", "connection"), "CosmosDB")?;
        let database = self.required_template("databaseName")?;
        let container = self.required_template(named("collectionName", "containerName"))?;
        let id = self.template("id")?;
        let sql = self.resolved("sqlQuery")?;
        let partition_key = self.template("partitionKey")?;
        let preferred_locations = self.preferred_locations()?;
        match (id, sql) {
            (Some(_), Some(_)) => {
                Err("`id` and `sqlQuery` exclude each other; use one of them".into())
            }
            (Some(id), None) => Ok(InputBinding::CosmosItem(CosmosItemInput {
                name: self.name.clone(),
                connection,
                database,
                container,
                id,
                partition_key,
                preferred_locations,
            })),
            (None, sql) => Ok(InputBinding::CosmosQuery(CosmosQueryInput {
                name: self.name.clone(),
                connection,
                database,
                container,
                sql_query: sql
                    .map(|sql| SqlTemplate::parse(&sql))
                    .transpose()
                    .map_err(|error| format!("`sqlQuery`: {error}"))?,
                partition_key,
                preferred_locations,
            })),
        }
    }

    fn cosmos_output(&mut self) -> Result<OutputBinding, String> {
        let generation = self.cosmos_generation()?;
        let named = |old, new| {
            if generation == Generation::Four {
                new
            } else {
                old
            }
        };
        Ok(OutputBinding::Cosmos(CosmosOutput {
            name: self.name.clone(),
            connection: self
                .connection(named("connectionStringSetting", "connection"), "CosmosDB")?,
            database: self.required_template("databaseName")?,
            container: self.required_template(named("collectionName", "containerName"))?,
            create_if_not_exists: self.fields.flag("createIfNotExists")?.unwrap_or(false),
            partition_key_path: self.template("partitionKey")?,
            container_throughput: self
                .fields
                .count(named("collectionThroughput", "containerThroughput"))?,
            preferred_locations: self.preferred_locations()?,
        }))
    }

    fn signalr_info(&self) -> Result<InputBinding, String> {
        self.needs_bundle()?;
        Ok(InputBinding::SignalRConnectionInfo(SignalRConnectionInfo {
            name: self.name.clone(),
            connection: self.signalr_connection()?,
            hub: self.required_template("hubName")?,
            user_id: self.template("userId")?,
            id_token: self.template("idToken")?,
            claim_types: self.fields.texts("claimTypeList")?.unwrap_or_default(),
        }))
    }

    fn signalr_output(&self) -> Result<OutputBinding, String> {
        self.needs_bundle()?;
        Ok(OutputBinding::SignalR(SignalROutput {
            name: self.name.clone(),
            connection: self.signalr_connection()?,
            hub: self.required_template("hubName")?,
        }))
    }

    fn needs_bundle(&self) -> Result<Generation, String> {
        self.context.generation.ok_or_else(|| {
            "comes from an extension; add `\"extensionBundle\": {\"id\": \"Microsoft.Azure.Functions.ExtensionBundle\", \"version\": \"[4.*, 5.0.0)\"}` to host.json".to_owned()
        })
    }

    /// The generation, after making sure that no property is of the other one.
    fn cosmos_generation(&mut self) -> Result<Generation, String> {
        let generation = self.needs_bundle()?;
        for (old, new) in RENAMED {
            let (wrong, right, bundle) = match generation {
                Generation::Four => (old, new, "4"),
                Generation::Three => (new, old, "2 or 3"),
            };
            if self.fields.get(wrong).is_some() {
                return Err(format!(
                    "`{wrong}` is not a property in extension bundle {bundle}; write `{right}`"
                ));
            }
        }
        for (name, instead) in WITHOUT_EFFECT {
            if self.fields.get(name).is_some() {
                self.warnings
                    .push(format!("`{name}` has no effect: {instead}"));
            }
        }
        Ok(generation)
    }

    /// The *name* of a setting; never resolved.
    fn connection(&self, property: &str, default: &str) -> Result<String, String> {
        let Some(name) = self.fields.text(property)?.filter(|name| !name.is_empty()) else {
            return Ok(default.to_owned());
        };
        if name.contains('%') || name.contains('=') {
            // The value is not repeated: it may be a connection string.
            return Err(format!(
                "`{property}` holds the name of a setting; neither `%…%` nor a connection string belongs there"
            ));
        }
        Ok(name)
    }

    /// One stored revision of the extension calls the property `connection`; apps write `connectionStringSetting`.
    fn signalr_connection(&self) -> Result<String, String> {
        let alias = self.connection("connection", "AzureSignalRConnectionString")?;
        self.connection("connectionStringSetting", &alias)
    }

    fn resolved(&self, property: &str) -> Result<Option<String>, String> {
        self.fields
            .text(property)?
            .filter(|text| !text.is_empty())
            .map(|text| self.context.settings.resolve(&text))
            .transpose()
            .map_err(|error| format!("`{property}`: {error}"))
    }

    fn required(&self, property: &str) -> Result<String, String> {
        self.resolved(property)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("`{property}` is missing"))
    }

    fn template(&self, property: &str) -> Result<Option<Template>, String> {
        self.resolved(property)?
            .map(|text| Template::parse(&text))
            .transpose()
            .map_err(|error| format!("`{property}`: {error}"))
    }

    fn required_template(&self, property: &str) -> Result<Template, String> {
        self.template(property)?
            .filter(|template| template.as_literal() != Some(""))
            .ok_or_else(|| format!("`{property}` is missing"))
    }

    fn preferred_locations(&self) -> Result<Vec<String>, String> {
        Ok(self
            .resolved("preferredLocations")?
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|region| !region.is_empty())
            .map(str::to_owned)
            .collect())
    }

    fn millis(&self, property: &str, default: Duration) -> Result<Duration, String> {
        match self.fields.count(property)? {
            None => Ok(default),
            Some(0) => Err(format!("`{property}` must be more than 0 milliseconds")),
            Some(millis) => Ok(Duration::from_millis(millis.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::Origin;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.set(Origin::File, "REGION", "West US");
        settings.set(Origin::File, "PreferredLocations", "West US, North Europe,");
        settings.set(Origin::File, "AzureWebJobs.Off.Disabled", "true");
        settings.set(Origin::File, "AzureWebJobs_Off2_Disabled", "1");
        settings
    }

    fn parse_as(
        generation: Option<Generation>,
        name: &str,
        text: &str,
    ) -> Result<FunctionDefinition, String> {
        let settings = settings();
        let context = FunctionContext {
            settings: &settings,
            generation,
            retry: None,
        };
        parse(name, text, context)
    }

    fn four(text: &str) -> Result<FunctionDefinition, String> {
        parse_as(Some(Generation::Four), "F", text)
    }

    const FEED: &str = r#"{"bindings":[{"type":"cosmosDBTrigger","direction":"in","name":"events","connection":"CosmosDBConnection",
        "databaseName":"eventsDb","containerName":"events","leaseContainerPrefix":"N-%REGION%","startFromBeginning":"true",
        "maxItemsPerInvocation":100,"feedPollDelay":"200","preferredLocations":"%PreferredLocations%"}],
        "retry":{"strategy":"exponentialBackoff","maxRetryCount":-1,"minimumInterval":"00:00:01","maximumInterval":"00:00:30"}}"#;

    #[test]
    fn reads_a_feed_trigger_with_defaults_and_settings() {
        let function = four(FEED).unwrap();
        let Trigger::Cosmos(trigger) = function.trigger else {
            panic!("not a feed")
        };
        assert_eq!(
            trigger,
            CosmosTrigger {
                name: "events".into(),
                connection: "CosmosDBConnection".into(),
                database: "eventsDb".into(),
                container: "events".into(),
                lease_connection: "CosmosDBConnection".into(),
                lease_database: "eventsDb".into(),
                lease_container: "leases".into(),
                create_lease_container: false,
                lease_container_throughput: None,
                lease_prefix: "N-West US".into(),
                feed_poll_delay: Duration::from_millis(200),
                lease_renew_interval: Duration::from_secs(17),
                lease_acquire_interval: Duration::from_secs(13),
                lease_expiration_interval: Duration::from_secs(60),
                max_items: Some(100),
                start: FeedStart::Beginning,
                preferred_locations: vec!["West US".into(), "North Europe".into()],
            }
        );
        assert_eq!(function.retry.unwrap().max_retries, None);
    }

    #[test]
    fn older_names_belong_to_older_bundles() {
        let old = r#"{"bindings":[{"type":"cosmosDBTrigger","name":"events","connectionStringSetting":"C",
            "databaseName":"d","collectionName":"events","leaseCollectionPrefix":"N","createLeaseCollectionIfNotExists":true,
            "useMultipleWriteLocations":true}]}"#;
        let function = parse_as(Some(Generation::Three), "F", old).unwrap();
        let Trigger::Cosmos(trigger) = function.trigger else {
            panic!("not a feed")
        };
        assert_eq!(
            (trigger.container.as_str(), trigger.lease_prefix.as_str()),
            ("events", "N")
        );
        assert!(trigger.create_lease_container);
        assert!(function.warnings[0].contains("useMultipleWriteLocations"));

        let message = four(old).unwrap_err();
        assert!(
            message.contains("`connectionStringSetting`") && message.contains("`connection`"),
            "{message}"
        );
        let message = parse_as(Some(Generation::Three), "F", FEED).unwrap_err();
        assert!(
            message.contains("write `connectionStringSetting`"),
            "{message}"
        );
        let message = parse_as(None, "F", FEED).unwrap_err();
        assert!(message.contains("extensionBundle"), "{message}");
    }

    #[test]
    fn an_input_is_a_query_or_an_item() {
        let with = |properties: &str| {
            format!(
                r#"{{"bindings":[{{"type":"httpTrigger","name":"req"}},
                    {{"type":"cosmosDB","direction":"in","name":"rows","connection":"C","databaseName":"d","containerName":"c",{properties}}}]}}"#
            )
        };
        let query = four(&with(
            r#""sqlQuery":"SELECT * FROM c WHERE c.r = '%REGION%' AND c.d = {deviceId}""#,
        ))
        .unwrap();
        let InputBinding::CosmosQuery(query) = &query.inputs[0] else {
            panic!("not a query")
        };
        assert_eq!(
            query.sql_query.as_ref().unwrap().text(),
            "SELECT * FROM c WHERE c.r = 'West US' AND c.d = @deviceId"
        );
        let item = four(&with(r#""id":"{id}","partitionKey":"{id}""#)).unwrap();
        assert!(matches!(item.inputs[0], InputBinding::CosmosItem(_)));
        let both = four(&with(r#""id":"{id}","sqlQuery":"SELECT * FROM c""#)).unwrap_err();
        assert!(both.contains("exclude"), "{both}");
    }

    #[test]
    fn route_and_methods_are_literal_and_auth_defaults_to_function() {
        let function = four(
            r#"{"bindings":[{"type":"HttpTrigger","name":"req","route":"a/%X%","methods":["get","Post"]},{"type":"http","direction":"OUT","name":"$return"}]}"#,
        )
        .unwrap();
        let Trigger::Http(http) = &function.trigger else {
            panic!("not HTTP")
        };
        assert_eq!(http.route.as_deref(), Some("a/%X%"));
        assert_eq!(http.methods, ["GET", "POST"]);
        assert_eq!(http.auth_level, AuthLevel::Function);
        assert_eq!(function.http_output(), Some("$return"));
    }

    #[test]
    fn every_mistake_is_named() {
        let http = r#"{"type":"httpTrigger","name":"req"}"#;
        for (bindings, named) in [
            (String::new(), "`bindings`"),
            (r#"{"type":"http","direction":"out","name":"res"}"#.into(), "no trigger"),
            (format!("{http},{}", r#"{"type":"httpTrigger","name":"b"}"#), "second trigger"),
            (format!("{http},{}", r#"{"type":"http","direction":"out","name":"REQ"}"#), "REQ"),
            (format!("{http},{}", r#"{"type":"http","name":"res"}"#), "direction"),
            (format!("{http},{}", r#"{"type":"queue","direction":"out","name":"q"}"#), "\"queue\""),
            (format!("{http},{}", r#"{"type":"http","direction":"out","name":"a_b"}"#), "a_b"),
            (r#"{"type":"httpTrigger","name":"$return"}"#.into(), "$return"),
            (r#"{"type":"httpTrigger","direction":"out","name":"req"}"#.into(), "direction"),
            (r#"{"type":"httpTrigger","direction":"sideways","name":"req"}"#.into(), "sideways"),
            (r#"{"type":"httpTrigger","name":"req","dataType":"binary"}"#.into(), "dataType"),
            (r#"{"type":"timerTrigger","name":"t","schedule":"* * * * * *"}"#.into(), "timerTrigger"),
            (r#"{"type":"httpTrigger"}"#.into(), "`name`"),
            (r#"{"name":"x"}"#.into(), "`type`"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d"}"#.into(), "containerName"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d","containerName":"%NOPE%"}"#.into(), "NOPE"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d","containerName":"leases"}"#.into(), "differ"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d","containerName":"c","startFromBeginning":true,"startFromTime":"2026-01-01T00:00:00Z"}"#.into(), "startFromTime"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d","containerName":"c","leaseRenewInterval":70000}"#.into(), "leaseRenewInterval"),
            (r#"{"type":"cosmosDBTrigger","name":"e","databaseName":"d","containerName":"c","connection":"AccountKey=abc"}"#.into(), "name of a setting"),
            (format!("{http},{}", r#"{"type":"signalR","direction":"out","name":"s"}"#), "hubName"),
            (format!("{http},{}", r#"{"type":"cosmosDB","name":"s","databaseName":"d","containerName":"{x"}"#), "containerName"),
        ] {
            let message = four(&format!(r#"{{"bindings":[{bindings}]}}"#)).unwrap_err();
            assert!(message.contains(named), "{bindings}: {message}");
            assert!(!message.contains("abc"), "{message}");
        }
    }

    #[test]
    fn disabled_is_a_setting_and_not_a_property() {
        let text = r#"{"disabled":true,"bindings":[{"type":"httpTrigger","name":"req"}]}"#;
        let function = four(text).unwrap();
        assert!(!function.disabled);
        assert!(function.warnings[0].contains("AzureWebJobs.F.Disabled"));
        assert!(parse_as(None, "Off", text).unwrap().disabled);
        assert!(parse_as(None, "Off2", text).unwrap().disabled);
    }

    #[test]
    fn function_names_follow_the_pattern() {
        for good in ["a", "Write-Event_2", "HOSTS"] {
            assert!(is_function_name(good), "{good}");
        }
        for bad in ["", "1a", "a.b", "host", "Host", "ä"] {
            assert!(!is_function_name(bad), "{bad}");
        }
    }
}
