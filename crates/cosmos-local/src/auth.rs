//! Master-key signatures (Microsoft Learn: "Access control in the Azure Cosmos DB SQL API"), and Entra tokens.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use sha2::Sha256;

/// What clients ask Entra for, before `/.default`. (`COSMOS_AAD_SCOPE` in azure_data_cosmos_driver.)
const ENTRA_RESOURCE: &str = "https://cosmos.azure.com";

/// What SDKs may ask for first: the account that they talk to.
const ENTRA_ACCOUNTS: [&str; 2] = ["https://127.0.0.1", "https://localhost"];

/// How long a signature is good, and how much sooner than it was made by the clock of the service. (Microsoft Learn, "Azure
/// Cosmos DB service quotas": master token expiry time, maximum clock skew.)
const VALIDITY: SignedDuration = SignedDuration::from_mins(15);

/// How clients may prove who they are.
pub(crate) struct SignIn {
    pub(crate) key: MasterKey,
    /// Whether Entra tokens are taken. Nothing here issues them, so their signature is not looked at.
    pub(crate) entra_tokens: bool,
    /// Whether a signature is good for a while only, by this machine's clock.
    pub(crate) checks_dates: bool,
}

/// Why a caller was not let in. The texts are for the client and hold nothing secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignInError {
    #[error("{0}")]
    Unauthorized(String),
    #[error(
        "The authorization token is not valid at the current time. Please create another token and retry (token start time: \
         {}, token expiry time: {}, current server time: {}).",
        rfc1123(*start), rfc1123(expiry(*start)), rfc1123(*now)
    )]
    NotNow { start: Timestamp, now: Timestamp },
}

impl From<String> for SignInError {
    fn from(message: String) -> Self {
        Self::Unauthorized(message)
    }
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
    /// `x-ms-date`; empty when there is none.
    pub(crate) x_date: &'a str,
    /// `date`, which only counts where there is no `x-ms-date`; empty otherwise. (`AuthorizationHelper.cs` in
    /// azure-cosmos-dotnet-v3.)
    pub(crate) date: &'a str,
}

impl SignIn {
    /// Checks the `authorization` header.
    pub(crate) fn check(
        &self,
        authorization: Option<&str>,
        signed: &Signed<'_>,
        now: Timestamp,
    ) -> Result<Caller, SignInError> {
        let missing = || SignInError::from("the authorization header is missing".to_owned());
        let header = authorization.ok_or_else(missing)?;
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
            Some("master") => {
                self.key.check(signature, signed)?;
                if self.checks_dates {
                    check_date(signed, now)?;
                }
                Ok(Caller::Key)
            }
            Some("aad") if self.entra_tokens => {
                check_entra(signature, now)?;
                Ok(Caller::Identity)
            }
            Some("aad") => Err(
                "Entra tokens are not taken by this account; use the account key, \
                 or start cosmos-local with Entra tokens"
                    .to_owned()
                    .into(),
            ),
            Some(other) => Err(format!(
                "tokens of type {other:?} are not supported by cosmos-local; use the account key"
            )
            .into()),
            None => Err("the authorization header has no type".to_owned().into()),
        }
    }
}

/// Checks that a signature was made not long ago, nor will be.
fn check_date(signed: &Signed<'_>, now: Timestamp) -> Result<(), SignInError> {
    let date = match signed.x_date {
        "" => signed.date,
        x_date => x_date,
    };
    let start = rfc2822::DateTimeParser::new()
        .parse_timestamp(date)
        .map_err(|_| {
            format!("x-ms-date {date:?} is not a date such as Thu, 06 Aug 2026 10:00:00 GMT")
        })?;
    if start.duration_since(now).abs() > VALIDITY {
        return Err(SignInError::NotNow { start, now });
    }
    Ok(())
}

fn expiry(start: Timestamp) -> Timestamp {
    // The last of all times has none after it.
    start.checked_add(VALIDITY).unwrap_or(start)
}

fn rfc1123(time: Timestamp) -> String {
    // Only years before 0 and after 9999 have no such text.
    let text = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
    text.unwrap_or_default()
}

/// The claims of an Entra token that matter here.
#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
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
    let audiences = match claims.aud {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    };
    let is_here = |audience: &String| {
        let audience = audience.trim_end_matches('/');
        audience == ENTRA_RESOURCE || ENTRA_ACCOUNTS.contains(&audience)
    };
    if !audiences.iter().any(is_here) {
        return Err(format!(
            "the Entra token is meant for {audiences:?}; ask for {ENTRA_RESOURCE}/.default"
        ));
    }
    if claims.exp <= now.as_second() as f64 {
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
            "{}\n{}\n{link}\n{}\n{}\n",
            self.method.to_ascii_lowercase(),
            self.resource_type,
            self.x_date.to_ascii_lowercase(),
            self.date.to_ascii_lowercase()
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
            checks_dates: false,
        };
        let now = Timestamp::now();
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
                x_date: "Thu, 06 Aug 2026 10:00:00 GMT",
                date: "",
            };
            let plain = format!("type=master&ver=1.0&sig={signature}");
            assert_eq!(key.check(Some(&plain), &signed, now), Ok(Caller::Key));
            let encoded = plain
                .replace('=', "%3D")
                .replace('&', "%26")
                .replace('+', "%2B");
            assert_eq!(key.check(Some(&encoded), &signed, now), Ok(Caller::Key));
            assert!(
                key.check(Some(&plain.replace("sig=", "sig=AAAA")), &signed, now)
                    .is_err()
            );
            assert!(key.check(None, &signed, now).is_err());
        }
    }

    #[test]
    fn a_date_is_signed_on_its_own_line_and_is_near() {
        let sign_in = |checks_dates| SignIn {
            key: MasterKey::new("bG9jYWwta2V5LWZvci1kb2N1bWVudGF0aW9uLW9ubHk=").expect("base64"),
            entra_tokens: false,
            checks_dates,
        };
        let date = "Thu, 06 Aug 2026 10:00:00 GMT";
        let signed = |x_date, date| Signed {
            method: "GET",
            resource_type: "",
            links: vec![String::new()],
            x_date,
            date,
        };
        assert_eq!(
            signed("", date).payload(""),
            "get\n\n\n\nthu, 06 aug 2026 10:00:00 gmt\n"
        );
        let made: Timestamp = "2026-08-06T10:00:00Z".parse().expect("a time");
        let check = |checks_dates, signed: Signed<'_>, minutes| {
            let hmac = sign_in(true).key.hmac.chain_update(signed.payload(""));
            let signature = STANDARD.encode(hmac.finalize().into_bytes());
            let header = format!("type=master&ver=1.0&sig={signature}");
            let now = made + SignedDuration::from_mins(minutes);
            sign_in(checks_dates).check(Some(&header), &signed, now)
        };
        for minutes in [-15, 0, 15] {
            for signed in [
                signed(date, ""),
                signed("", date),
                signed("thu, 06 aug 2026 10:00:00 gmt", ""),
            ] {
                assert_eq!(check(true, signed, minutes), Ok(Caller::Key), "{minutes}");
            }
        }
        for minutes in [-16, 16] {
            let refused = check(true, signed(date, ""), minutes).expect_err("too far");
            let SignInError::NotNow { .. } = refused else {
                panic!("{refused}");
            };
            assert_eq!(check(false, signed(date, ""), minutes), Ok(Caller::Key));
        }
        let late = check(true, signed(date, ""), 16).expect_err("too late");
        assert_eq!(
            late.to_string(),
            "The authorization token is not valid at the current time. Please create another token and retry (token start \
             time: Thu, 06 Aug 2026 10:00:00 GMT, token expiry time: Thu, 06 Aug 2026 10:15:00 GMT, current server time: \
             Thu, 06 Aug 2026 10:16:00 GMT)."
        );
        for never in ["tomorrow", "", "Thu, 30 Dec 9999 21:59:59 GMT"] {
            let refused = check(true, signed(never, ""), 0).expect_err(never);
            assert!(!refused.to_string().is_empty());
        }
    }

    #[test]
    fn entra_tokens_are_for_cosmos_db_and_still_good() {
        let token = |payload: &str| format!("e30.{}.s", URL_SAFE_NO_PAD.encode(payload));
        let now = Timestamp::from_second(1_000).expect("a time");
        for good in [
            r#"{"aud":"https://cosmos.azure.com","exp":1001}"#,
            r#"{"aud":["https://else.where","https://cosmos.azure.com/"],"exp":1000.5}"#,
            r#"{"aud":"https://127.0.0.1","exp":1001}"#,
        ] {
            assert_eq!(check_entra(&token(good), now), Ok(()), "{good}");
        }
        for (bad, why) in [
            (
                token(r#"{"aud":"https://cosmos.azure.com","exp":1000}"#),
                "expired",
            ),
            (
                token(r#"{"aud":["https://signalr.azure.com"],"exp":1001}"#),
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
