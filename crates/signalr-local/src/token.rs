//! Access tokens: JWTs signed with the access key, for clients and for the REST API.
//!
//! The key is the UTF-8 text of the access key (`Azure/azure-signalr: src/Microsoft.Azure.SignalR.Common/Auth/AuthUtility.cs`).
//! The audience carries no port, whatever the endpoint's; hosts differ between containers and browsers; some SDK
//! generations put the query into it. So paths and hubs are compared, and nothing else.

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, dangerous, decode, encode,
    get_current_timestamp,
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use url::Url;

/// Clock difference that an expired token is forgiven, in seconds.
const LEEWAY: u64 = 300;

/// Longest token, in characters; SDKs refuse to make longer ones.
const MAX_TOKEN: usize = 4096;

/// The same for Entra's, which list groups and roles.
const MAX_ENTRA_TOKEN: usize = 16 * 1024;

/// What clients ask Microsoft Entra ID for, before `/.default`.
const ENTRA_RESOURCE: &str = "https://signalr.azure.com";

/// How long a client's token is valid unless the caller says otherwise, and at most, in minutes.
const DEFAULT_MINUTES: u32 = 60;
const MAX_MINUTES: u32 = 24 * 60;

/// What makes good tokens.
pub(crate) struct Keys {
    key: DecodingKey,
    signing: EncodingKey,
    validation: Validation,
    /// Whether REST calls may carry Entra tokens. Nothing here issues them, so their signature is not looked at.
    entra_tokens: bool,
}

/// The claims that the service acts on.
#[derive(Debug, Deserialize)]
struct Claims {
    aud: Option<Audience>,
    exp: u64,
    #[serde(rename = "asrs.s.uid")]
    user: Option<String>,
    nameid: Option<String>,
    #[serde(rename = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier")]
    name_identifier: Option<String>,
    sub: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn any(&self, matches: impl Fn(&Url) -> bool) -> bool {
        let audiences = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        audiences
            .iter()
            .filter_map(|audience| Url::parse(audience).ok())
            .any(|url| matches(&url))
    }
}

/// The token is not good for this request. Why is for the log; callers learn only that it was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no token")]
    Missing,
    #[error("the token is longer than {MAX_TOKEN} characters")]
    TooLong,
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    #[error("the token's audience is another than this request")]
    Audience,
}

impl Keys {
    pub(crate) fn new(access_key: &str, entra_tokens: bool) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS512];
        validation.leeway = LEEWAY;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp"]);
        Self {
            key: DecodingKey::from_secret(access_key.as_bytes()),
            signing: EncodingKey::from_secret(access_key.as_bytes()),
            validation,
            entra_tokens,
        }
    }

    fn claims(&self, token: Option<&str>) -> Result<Claims, Refused> {
        let token = token.ok_or(Refused::Missing)?;
        if token.len() > MAX_TOKEN {
            return Err(Refused::TooLong);
        }
        Ok(decode::<Claims>(token, &self.key, &self.validation)?.claims)
    }

    /// Checks a client's token for `hub`, and returns its user id, if it names one.
    pub(crate) fn client(&self, token: Option<&str>, hub: &str) -> Result<Option<String>, Refused> {
        let claims = self.claims(token)?;
        let for_hub = |url: &Url| {
            url.path()
                .trim_end_matches('/')
                .eq_ignore_ascii_case("/client")
                && url.query_pairs().any(|(name, value)| {
                    name.eq_ignore_ascii_case("hub") && value.eq_ignore_ascii_case(hub)
                })
        };
        if !claims
            .aud
            .as_ref()
            .is_some_and(|audience| audience.any(for_hub))
        {
            return Err(Refused::Audience);
        }
        Ok(claims
            .user
            .or(claims.nameid)
            .or(claims.name_identifier)
            .or(claims.sub))
    }

    /// Makes the token of a client of `hub`.
    pub(crate) fn for_client(
        &self,
        endpoint: &str,
        hub: &str,
        user: Option<&str>,
        minutes: u32,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = get_current_timestamp();
        let mut claims = json!({
            "aud": format!("{endpoint}/client/?hub={hub}"),
            "nbf": now,
            "iat": now,
            "exp": now + u64::from(minutes) * 60,
        });
        if let Some(user) = user {
            claims["asrs.s.uid"] = user.into();
        }
        encode(&Header::default(), &claims, &self.signing)
    }

    /// Checks a REST token for the (still percent-encoded) path of a request.
    pub(crate) fn rest(&self, token: Option<&str>, path: &str) -> Result<(), Refused> {
        let decoded = |path: &str| {
            percent_decode_str(path.trim_end_matches('/'))
                .decode_utf8_lossy()
                .to_lowercase()
        };
        let path = decoded(path);
        if self.entra_tokens && token.is_some_and(is_entra) {
            return Ok(());
        }
        let claims = self.claims(token)?;
        if claims
            .aud
            .as_ref()
            .is_some_and(|audience| audience.any(|url| decoded(url.path()) == path))
        {
            return Ok(());
        }
        Err(Refused::Audience)
    }
}

/// Whether a token says that it is for the service, and still good.
fn is_entra(token: &str) -> bool {
    token.len() <= MAX_ENTRA_TOKEN
        && dangerous::insecure_decode_claims::<Claims>(token).is_ok_and(|claims| {
            let is_for_service = |url: &Url| url.as_str().trim_end_matches('/') == ENTRA_RESOURCE;
            claims.exp > get_current_timestamp()
                && claims
                    .aud
                    .is_some_and(|audience| audience.any(is_for_service))
        })
}

/// How long a client's token is to be valid, in minutes: what a query says, within the limits.
pub(crate) fn minutes(text: Option<&str>) -> Option<u32> {
    match text {
        None => Some(DEFAULT_MINUTES),
        Some(text) => text
            .parse()
            .ok()
            .filter(|minutes| (1..=MAX_MINUTES).contains(minutes)),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "bG9jYWwtZGV2ZWxvcG1lbnQta2V5LW9mLTMyLWJ5dGVz";

    fn token(key: &[u8], claims: Value) -> String {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(key)).expect("signed")
    }

    fn soon() -> i64 {
        jiff::Timestamp::now().as_second() + 3600
    }

    #[test]
    fn a_client_token_is_good_for_its_hub_only_whatever_host_and_port() {
        let keys = Keys::new(KEY, false);
        for audience in [
            "http://localhost/client/?hub=Orders",
            "https://x.service.signalr.net:8888/client?hub=orders",
        ] {
            let token = token(
                KEY.as_bytes(),
                json!({"aud": audience, "exp": soon(), "asrs.s.uid": "ana", "sub": "x"}),
            );
            assert_eq!(
                keys.client(Some(&token), "orders").expect("good"),
                Some("ana".to_owned())
            );
            assert!(matches!(
                keys.client(Some(&token), "other"),
                Err(Refused::Audience)
            ));
            assert!(matches!(
                keys.rest(Some(&token), "/api/hubs/orders/:send"),
                Err(Refused::Audience)
            ));
        }
    }

    #[test]
    fn a_rest_audience_is_compared_by_decoded_path_without_query() {
        let keys = Keys::new(KEY, false);
        for audience in [
            "http://localhost/api/hubs/o/groups/eu%2Fwest/:send?api-version=2022-06-01",
            "http://elsewhere/api/hubs/O/groups/eu%2fwest/:send",
        ] {
            let token = token(KEY.as_bytes(), json!({"aud": [audience], "exp": soon()}));
            assert!(
                keys.rest(Some(&token), "/api/hubs/o/groups/eu%2Fwest/:send")
                    .is_ok()
            );
            assert!(keys.rest(Some(&token), "/api/hubs/o/:send").is_err());
        }
    }

    #[test]
    fn bad_tokens_are_refused() {
        let keys = Keys::new(KEY, false);
        let good = json!({"aud": "http://h/client/?hub=h", "exp": soon()});
        let decoded_key = STANDARD.decode(KEY).expect("the key looks like base64");
        let expired = json!({"aud": "http://h/client/?hub=h", "exp": soon() - 3600 - 301});
        let endless = json!({"aud": "http://h/client/?hub=h"});
        let unsigned = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJodHRwOi8vaC9jbGllbnQvP2h1Yj1oIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
        for (why, token) in [
            (
                "other key",
                token(b"another-key-of-thirty-two-bytes!", good.clone()),
            ),
            ("key decoded from base64", token(&decoded_key, good)),
            ("expired", token(KEY.as_bytes(), expired)),
            ("no expiry", token(KEY.as_bytes(), endless)),
            ("unsigned", unsigned.to_owned()),
            ("too long", "x".repeat(MAX_TOKEN + 1)),
        ] {
            assert!(keys.client(Some(&token), "h").is_err(), "{why}");
        }
        assert!(matches!(keys.client(None, "h"), Err(Refused::Missing)));
    }

    #[test]
    fn an_entra_token_opens_the_data_plane_when_that_is_wanted() {
        let entra = |audience: &str, exp: i64| {
            let token = token(
                b"a-key-that-only-entra-has-32-bytes",
                json!({"aud": audience, "exp": exp}),
            );
            Keys::new(KEY, true).rest(Some(&token), "/api/hubs/o/:send")
        };
        assert!(entra("https://signalr.azure.com", soon()).is_ok());
        assert!(entra("https://cosmos.azure.com", soon()).is_err());
        assert!(entra("https://signalr.azure.com", soon() - 7200).is_err());
        let token = token(
            b"another",
            json!({"aud": "https://signalr.azure.com", "exp": soon()}),
        );
        assert!(
            Keys::new(KEY, false)
                .rest(Some(&token), "/api/hubs/o/:send")
                .is_err()
        );
        assert!(Keys::new(KEY, true).client(Some(&token), "o").is_err());
    }

    #[test]
    fn tokens_that_are_made_here_are_good_here() {
        let keys = Keys::new(KEY, true);
        let token = keys
            .for_client("http://127.0.0.1:8888", "o", Some("ana"), 5)
            .expect("made");
        assert_eq!(
            keys.client(Some(&token), "o").expect("good").as_deref(),
            Some("ana")
        );
        assert_eq!(minutes(None), Some(60));
        assert_eq!(minutes(Some("1440")), Some(1440));
        for bad in ["0", "1441", "-1", "x", ""] {
            assert_eq!(minutes(Some(bad)), None, "{bad}");
        }
    }
}
