//! Master-key signatures (Microsoft Learn: "Access control in the Azure Cosmos DB SQL API"), and Entra tokens.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use sha2::Sha256;

/// What clients ask Entra for, before `/.default`. (`COSMOS_AAD_SCOPE` in azure_data_cosmos_driver.)
const ENTRA_RESOURCE: &str = "https://cosmos.azure.com";

/// How clients may prove who they are.
pub(crate) struct SignIn {
    pub(crate) key: MasterKey,
    /// Whether Entra tokens are taken. Nothing here issues them, so their signature is not looked at.
    pub(crate) entra_tokens: bool,
}

/// Who has signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Holder of the account key: may do everything.
    Key,
    /// An identity of Entra: may read and write items, and read what is around them.
    Identity,
}

/// The account key.
#[derive(Clone)]
pub(crate) struct MasterKey {
    /// Keyed and empty; a copy is cheaper than keying it again.
    hmac: Hmac<Sha256>,
}

/// What a signature is made over.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) resource_type: &'a str,
    /// Links under which the resource may have been signed: by name, and by resource id.
    pub(crate) links: Vec<String>,
    /// `x-ms-date`, or `date`.
    pub(crate) date: &'a str,
}

impl SignIn {
    /// Checks the `authorization` header; the error is for the client and holds nothing secret.
    pub(crate) fn check(
        &self,
        authorization: Option<&str>,
        signed: &Signed<'_>,
    ) -> Result<Caller, String> {
        let header = authorization.ok_or("the authorization header is missing")?;
        let decoded = if header.contains("type=") {
            header.to_owned()
        } else {
            percent_decode_str(header).decode_utf8_lossy().into_owned()
        };
        let part = |name: &str| {
            decoded
                .split('&')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let signature = part("sig").unwrap_or_default();
        match part("type") {
            Some("master") => self.key.check(signature, signed).map(|()| Caller::Key),
            Some("aad") if self.entra_tokens => {
                check_entra(signature, Timestamp::now()).map(|()| Caller::Identity)
            }
            Some("aad") => Err(
                "Entra tokens are not taken by this account; use the account key, \
                 or start cosmos-local with Entra tokens"
                    .into(),
            ),
            Some(other) => Err(format!(
                "tokens of type {other:?} are not supported by cosmos-local; use the account key"
            )),
            None => Err("the authorization header has no type".into()),
        }
    }
}

/// The claims of an Entra token that matter here.
#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: i64,
}

/// Checks that a token is meant for Cosmos DB, and still good.
fn check_entra(token: &str, now: Timestamp) -> Result<(), String> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("the Entra token does not have three parts".into());
    };
    let payload = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|_| "the payload of the Entra token is not base64url")?;
    let claims: Claims = serde_json::from_slice(&payload)
        .map_err(|_| "the payload of the Entra token has no `aud` and `exp`")?;
    if claims.aud.trim_end_matches('/') != ENTRA_RESOURCE {
        return Err(format!(
            "the Entra token is meant for {:?}; ask for {ENTRA_RESOURCE}/.default",
            claims.aud
        ));
    }
    if claims.exp <= now.as_second() {
        return Err("the Entra token has expired".into());
    }
    Ok(())
}

impl MasterKey {
    /// Reads the key; `None` when it is not base64.
    pub(crate) fn new(base64: &str) -> Option<Self> {
        let bytes = STANDARD.decode(base64).ok()?;
        Some(Self {
            hmac: Hmac::new_from_slice(&bytes).ok()?,
        })
    }

    fn check(&self, signature: &str, signed: &Signed<'_>) -> Result<(), String> {
        let signature = signature.replace(' ', "+");
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| "the signature is not base64")?;
        let mut payloads = signed.links.iter().map(|link| signed.payload(link));
        if payloads.any(|payload| self.verify(&payload, &signature)) {
            return Ok(());
        }
        let payload = signed
            .links
            .first()
            .map(|link| signed.payload(link))
            .unwrap_or_default();
        Err(format!(
            "The supplied authorization token cannot serve this request. Payload the server signed: '{}'",
            payload.replace('\n', "\\n")
        ))
    }

    fn verify(&self, payload: &str, signature: &[u8]) -> bool {
        let hmac = self.hmac.clone().chain_update(payload);
        hmac.verify_slice(signature).is_ok()
    }
}

impl Signed<'_> {
    fn payload(&self, link: &str) -> String {
        format!(
            "{}\n{}\n{link}\n{}\n\n",
            self.method.to_lowercase(),
            self.resource_type,
            self.date.to_lowercase()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_signatures() {
        let key = SignIn {
            key: MasterKey::new("bG9jYWwta2V5LWZvci1kb2N1bWVudGF0aW9uLW9ubHk=").expect("base64"),
            entra_tokens: false,
        };
        for (resource_type, link, signature) in [
            (
                "docs",
                "dbs/shop/colls/orders/docs/o-1",
                "jYMj62EI9NEFkCR9nr8gMcIndjakWaY775wSCzbzcxE=",
            ),
            ("", "", "lS7wRcl20cMQzaDtzDjtbFC3DiDhscDyMFTrGEOpODo="),
        ] {
            let signed = Signed {
                method: "GET",
                resource_type,
                links: vec![link.to_owned()],
                date: "Thu, 06 Aug 2026 10:00:00 GMT",
            };
            let plain = format!("type=master&ver=1.0&sig={signature}");
            assert_eq!(key.check(Some(&plain), &signed), Ok(Caller::Key));
            let encoded = plain
                .replace('=', "%3D")
                .replace('&', "%26")
                .replace('+', "%2B");
            assert_eq!(key.check(Some(&encoded), &signed), Ok(Caller::Key));
            assert!(
                key.check(Some(&plain.replace("sig=", "sig=AAAA")), &signed)
                    .is_err()
            );
            assert!(key.check(None, &signed).is_err());
        }
    }

    #[test]
    fn entra_tokens_are_for_cosmos_db_and_still_good() {
        let token = |payload: &str| format!("e30.{}.s", URL_SAFE_NO_PAD.encode(payload));
        let now = Timestamp::from_second(1_000).expect("a time");
        let good = token(r#"{"aud":"https://cosmos.azure.com","exp":1001}"#);
        assert_eq!(check_entra(&good, now), Ok(()));
        for (bad, why) in [
            (
                token(r#"{"aud":"https://cosmos.azure.com","exp":1000}"#),
                "expired",
            ),
            (
                token(r#"{"aud":"https://signalr.azure.com","exp":1001}"#),
                "meant for",
            ),
            (token("{}"), "no `aud`"),
            ("a.b".to_owned(), "three parts"),
            ("a.!.b".to_owned(), "base64url"),
        ] {
            let error = check_entra(&bad, now).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
    }
}
