//! Master-key signatures (Microsoft Learn: "Access control in the Azure Cosmos DB SQL API").

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

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

impl MasterKey {
    /// Reads the key; `None` when it is not base64.
    pub(crate) fn new(base64: &str) -> Option<Self> {
        let bytes = STANDARD.decode(base64).ok()?;
        Some(Self {
            hmac: Hmac::new_from_slice(&bytes).ok()?,
        })
    }

    /// Checks the `authorization` header; the error is for the client and holds nothing secret.
    pub(crate) fn check(
        &self,
        authorization: Option<&str>,
        signed: &Signed<'_>,
    ) -> Result<(), String> {
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
        match part("type") {
            Some("master") => {}
            Some(other) => {
                return Err(format!(
                    "tokens of type {other:?} are not supported by cosmos-local; use the account key"
                ));
            }
            None => return Err("the authorization header has no type".into()),
        }
        let signature = part("sig").unwrap_or_default().replace(' ', "+");
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
        let key = MasterKey::new("bG9jYWwta2V5LWZvci1kb2N1bWVudGF0aW9uLW9ubHk=").expect("base64");
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
            assert_eq!(key.check(Some(&plain), &signed), Ok(()));
            let encoded = plain
                .replace('=', "%3D")
                .replace('&', "%26")
                .replace('+', "%2B");
            assert_eq!(key.check(Some(&encoded), &signed), Ok(()));
            assert!(
                key.check(Some(&plain.replace("sig=", "sig=AAAA")), &signed)
                    .is_err()
            );
            assert!(key.check(None, &signed).is_err());
        }
    }
}
