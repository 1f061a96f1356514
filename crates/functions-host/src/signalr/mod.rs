//! The SignalR bindings of a Functions host: `signalRConnectionInfo` in, `signalR` out.
//!
//! Talks to Azure SignalR Service (or anything that speaks like it) in serverless mode: tokens for
//! clients are signed here, messages go through the REST API.
//!
//! * [`SignalRClients`]: connection settings, shared by all bindings of one host.
//! * [`connection_info`]: what a client needs to connect.
//! * [`output::send`]: messages and group actions.
//!
//! What it is not: no several endpoints, no persistent transport, no trigger; each is refused with a
//! text that names the setting.

mod clients;
mod connection;
mod message;
pub mod output;
mod rest;
mod token;

use jiff::Timestamp;
use serde_json::json;

pub use clients::SignalRClients;
pub use message::API_VERSION;
pub use rest::{ATTEMPTS, REQUEST_LIMIT, RETRY_PAUSE};
pub use token::{TOKEN_LENGTH_LIMIT, TOKEN_LIFETIME_SECONDS};

use self::connection::Access;
use self::message::segment;
use self::token::Identity;
use crate::binding::{BindingError, Encoded, SignalRConnectionInfo};
use crate::binding_data::BindingData;

/// Longest hub name, in characters.
pub const HUB_NAME_LIMIT: usize = 128;

/// What a client needs to connect: indented JSON text of `{url, accessToken}`.
///
/// The text is what the extension binds for script languages
/// (`Azure/azure-sdk-for-net: .../SignalRConnectionInfoValueProvider.cs`).
///
/// # Errors
/// An expression without value, an unusable connection setting or hub name, a token that cannot
/// be issued.
pub async fn connection_info(
    clients: &SignalRClients,
    info: &SignalRConnectionInfo,
    data: &BindingData,
) -> Result<Encoded, BindingError> {
    let connection = clients.connection(&info.connection)?;
    let hub = segment(&hub_name(&info.hub.resolve(data)?)?);
    let resolve = |template: &Option<crate::expression::Template>| {
        template
            .as_ref()
            .map(|template| template.resolve(data))
            .transpose()
            .map(|text| text.filter(|text| !text.is_empty()))
    };
    let user_id = resolve(&info.user_id)?;
    let id_token = resolve(&info.id_token)?;
    let identity = Identity {
        user_id: user_id.as_deref(),
        id_token: id_token.as_deref(),
        claim_types: &info.claim_types,
    };
    let token = match connection.access() {
        Access::Key(key) => {
            token::client_token(&connection, key, &hub, &identity, Timestamp::now())
                .map_err(|error| BindingError::Configuration(error.to_string()))?
        }
        Access::Identity(_) if !identity.claim_types.is_empty() => {
            return Err(BindingError::Configuration(
                "claimTypeList cannot be used with an identity-based connection: the service makes \
                 the tokens of its clients, and copies no claims"
                    .to_owned(),
            ));
        }
        Access::Identity(credential) => clients
            .rest()
            .await?
            .client_token(&connection, credential, &hub, identity.user_id)
            .await
            .map_err(|error| error.into_binding_error("asking for the token of a client"))?,
    };
    let value = json!({
        "url": format!("{}/client/?hub={hub}", connection.client()),
        "accessToken": token,
    });
    Ok(Encoded::Text(format!("{value:#}")))
}

/// Checks a hub name and brings it into the form that the service compares: lower case.
fn hub_name(name: &str) -> Result<String, BindingError> {
    let mut chars = name.chars();
    let valid = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || "_`,.[]".contains(c))
        && name.len() <= HUB_NAME_LIMIT;
    if valid {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(BindingError::Configuration(format!(
            "hub name {name:?} must begin with a letter and consist of up to {HUB_NAME_LIMIT} \
             letters, digits and _ ` , . [ ]"
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hub_names_are_checked_and_lower_cased() {
        assert_eq!(hub_name("Events").unwrap(), "events");
        assert_eq!(hub_name("a`b,c.[d]_9").unwrap(), "a`b,c.[d]_9");
        for name in ["", "9a", "a b", "a/b", "é", &"a".repeat(129)] {
            assert!(hub_name(name).is_err(), "{name}");
        }
    }
}
