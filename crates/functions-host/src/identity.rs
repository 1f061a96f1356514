//! Signing in with Microsoft Entra ID: connections without keys.
//!
//! Beside its address, a section of settings says who signs in: `X__credential` = `managedidentity`, with `X__clientId` for
//! a user-assigned one. Without `X__credential` it is the developer who has signed in with Azure CLI or azd, which is where
//! the default chain of the real host ends on a development machine. (Microsoft Learn, "Guidance for developing Azure
//! Functions", identity-based connections.)

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId,
};

/// Gives tokens for an identity.
pub type Credential = Arc<dyn TokenCredential>;

/// Settings that name ways to sign in which are not supported here.
const UNSUPPORTED: [&str; 2] = ["clientSecret", "tenantId"];

/// The credential that the section `name` asks for; `get` reads a setting. `given` takes the place of a managed identity.
///
/// # Errors
/// What is wrong with which setting, and what to do.
pub(crate) fn credential<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    name: &str,
    given: Option<&Credential>,
) -> Result<Credential, String> {
    let get = |part: &str| get(&format!("{name}__{part}")).filter(|text| !text.trim().is_empty());
    if let Some(part) = UNSUPPORTED.into_iter().find(|part| get(part).is_some()) {
        return Err(format!(
            "has {name}__{part}, which is not supported here; use a managed identity or a connection string"
        ));
    }
    match get("credential") {
        Some(kind) if kind.eq_ignore_ascii_case("managedidentity") => {
            if let Some(given) = given {
                return Ok(given.clone());
            }
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: get("clientId").map(|id| UserAssignedId::ClientId(id.to_owned())),
                ..Default::default()
            };
            let credential = ManagedIdentityCredential::new(Some(options))
                .map_err(|error| format!("asks for a managed identity: {error}"))?;
            Ok(credential)
        }
        Some(_) => Err(format!(
            "has a {name}__credential that is not known; it is `managedidentity`, or left out"
        )),
        None => {
            let credential = DeveloperToolsCredential::new(None).map_err(|error| {
                format!(
                    "is without a key: sign in with `az login` or `azd auth login`, set \
                     {name}__credential to `managedidentity` where there is one, or set {name} to a \
                     connection string: {error}"
                )
            })?;
            Ok(credential)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(settings: &[(&str, &'static str)]) -> Result<Credential, String> {
        let get = |name: &str| {
            let mut settings = settings.iter();
            settings
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        credential(get, "Db", None)
    }

    #[test]
    fn who_signs_in_is_said_by_the_section() {
        let managed = ("Db__credential", "ManagedIdentity");
        let credential = find(&[managed, ("Db__clientId", "c")]).unwrap();
        assert!(format!("{credential:?}").contains("ManagedIdentity"));
        let error = find(&[("Db__credential", "password")]).unwrap_err();
        assert!(error.contains("it is `managedidentity`"), "{error}");
        let error = find(&[managed, ("Db__clientSecret", "s3cret")]).unwrap_err();
        assert!(
            error.contains("Db__clientSecret") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
