//! `signalR` output bindings: messages and group actions, one REST call each, in order.

use serde_json::{Map, Value};

use super::clients::SignalRClients;
use super::hub_name;
use super::message::{call_for, segment};
use super::rest::path;
use crate::binding::{BindingError, SignalROutput};
use crate::binding_data::BindingData;

/// Sends `items` in order; each is a message or a group action.
///
/// All items are understood before the first one is sent, so a malformed item sends nothing.
/// (The real extension finds it only when its turn comes.)
///
/// # Errors
/// An item that is neither, an unusable connection setting, any answer but success. What was sent
/// before stays sent.
pub async fn send(
    clients: &SignalRClients,
    output: &SignalROutput,
    data: &BindingData,
    items: &[Map<String, Value>],
) -> Result<(), BindingError> {
    let mut calls = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let call = call_for(item)
            .map_err(|error| BindingError::InvalidOutput(format!("item {index}: {error}")))?;
        calls.extend(call);
    }
    if calls.is_empty() {
        return Ok(());
    }
    let connection = clients.connection(&output.connection)?;
    let hub = segment(&hub_name(&output.hub.resolve(data)?)?);
    let rest = clients.rest().await?;
    for call in &calls {
        rest.call(&connection, clients.server_name(), &hub, call)
            .await
            .map_err(|error| {
                error.into_binding_error(&format!("{} {}", call.method, path(&hub, call)))
            })?;
    }
    Ok(())
}
