//! The two kinds of token: one that a client connects with, one that a REST call carries.
//!
//! Claims as minted by `Azure/azure-signalr: src/Microsoft.Azure.SignalR.Common/Utilities/ClaimsUtility.cs`
//! and `.../Utilities/AuthUtility.cs`: HS256 over the UTF-8 text of the access key, one hour valid.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::connection::Connection;

/// How long a token is valid, in seconds.
pub const TOKEN_LIFETIME_SECONDS: i64 = 3600;

/// Longest token a client may be given, in characters (the service's SDK refuses longer ones).
pub const TOKEN_LENGTH_LIMIT: usize = 4096;

/// Claim that carries the user id.
const USER_ID: &str = "asrs.s.uid";

/// Prefix for application claims whose names belong to the token itself.
const RESERVED_PREFIX: &str = "asrs.u.";

/// Names an application claim cannot have.
const RESERVED: [&str; 4] = ["aud", "exp", "iat", "nbf"];

/// Why a token cannot be issued.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    /// Signing failed.
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// The claims do not fit.
    #[error(
        "the token has {0} characters, more than the {TOKEN_LENGTH_LIMIT} that the service accepts; copy fewer claims (claimTypeList)"
    )]
    TooLong(usize),
    /// `idToken` is not a JSON web token.
    #[error("idToken is not a JSON web token: {0}")]
    IdToken(&'static str),
}

/// What a client token says about the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity<'a> {
    /// Becomes the SignalR user id.
    pub(crate) user_id: Option<&'a str>,
    /// A JSON web token whose claims may be copied. It is decoded, not validated: whoever put it
    /// there (App Service authentication) has done that.
    pub(crate) id_token: Option<&'a str>,
    /// Names of the claims to copy.
    pub(crate) claim_types: &'a [String],
}

/// The token for a client of `hub`, signed with the access key.
pub(crate) fn client_token(
    connection: &Connection,
    key: &EncodingKey,
    hub: &str,
    identity: &Identity<'_>,
    now: Timestamp,
) -> Result<String, TokenError> {
    let mut claims = Map::new();
    if let Some(user) = identity.user_id {
        claims.insert(USER_ID.into(), user.into());
    }
    if let Some(token) = identity.id_token
        && !identity.claim_types.is_empty()
    {
        for (name, value) in claims_of(token)? {
            if !identity.claim_types.contains(&name) {
                continue;
            }
            let name = if RESERVED.contains(&name.as_str()) {
                format!("{RESERVED_PREFIX}{name}")
            } else {
                name
            };
            claims.insert(name, value);
        }
    }
    let audience = format!("{}/client/?hub={hub}", connection.audience());
    let token = sign(key, claims, &audience, now)?;
    if token.len() > TOKEN_LENGTH_LIMIT {
        return Err(TokenError::TooLong(token.len()));
    }
    Ok(token)
}

/// The token for one REST call, signed with the access key; `path` is the path and query, as sent.
pub(crate) fn rest_token(
    connection: &Connection,
    key: &EncodingKey,
    server_name: &str,
    path: &str,
    now: Timestamp,
) -> Result<String, TokenError> {
    let claims = Map::from_iter([("nameid".to_owned(), server_name.into())]);
    let audience = format!("{}{path}", connection.audience());
    sign(key, claims, &audience, now)
}

fn sign(
    key: &EncodingKey,
    mut claims: Map<String, Value>,
    audience: &str,
    now: Timestamp,
) -> Result<String, TokenError> {
    let now = now.as_second();
    claims.insert("nbf".into(), json!(now));
    claims.insert("iat".into(), json!(now));
    claims.insert("exp".into(), json!(now + TOKEN_LIFETIME_SECONDS));
    claims.insert("aud".into(), json!(audience));
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        key,
    )?)
}

fn claims_of(token: &str) -> Result<Map<String, Value>, TokenError> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::IdToken("it does not have three parts"));
    };
    let payload = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|_| TokenError::IdToken("its payload is not base64url"))?;
    serde_json::from_slice(&payload)
        .map_err(|_| TokenError::IdToken("its payload is not a JSON object"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    const KEY: &str = "local-development-key-0123456789abcdef";

    fn connection() -> Connection {
        Connection::parse(&format!(
            "Endpoint=http://localhost:8888;AccessKey={KEY};Version=1.0;ClientEndpoint=http://other:1"
        ))
        .unwrap()
    }

    fn key() -> EncodingKey {
        EncodingKey::from_secret(KEY.as_bytes())
    }

    fn verified(token: &str) -> Map<String, Value> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        jsonwebtoken::decode(
            token,
            &DecodingKey::from_secret(KEY.as_bytes()),
            &validation,
        )
        .unwrap()
        .claims
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_client_token_names_hub_and_user_and_no_port() {
        let identity = Identity {
            user_id: Some("ana"),
            ..Identity::default()
        };
        let token = client_token(
            &connection(),
            &key(),
            "orders",
            &identity,
            at(1_760_000_000),
        )
        .unwrap();
        assert_eq!(
            Value::Object(verified(&token)),
            json!({
                "asrs.s.uid": "ana", "nbf": 1_760_000_000, "iat": 1_760_000_000,
                "exp": 1_760_003_600, "aud": "http://localhost/client/?hub=orders"
            })
        );
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(
            (header.alg, header.typ.as_deref()),
            (Algorithm::HS256, Some("JWT"))
        );
    }

    #[test]
    fn an_anonymous_client_has_no_user_claim() {
        let token =
            client_token(&connection(), &key(), "orders", &Identity::default(), at(1)).unwrap();
        assert!(!verified(&token).contains_key("asrs.s.uid"));
    }

    #[test]
    fn listed_claims_are_copied_and_reserved_names_moved_aside() {
        let payload = URL_SAFE_NO_PAD.encode(
            json!({"name": "Ana", "roles": ["a", "b"], "exp": 5, "secret": "x"}).to_string(),
        );
        let types = ["name".to_owned(), "roles".to_owned(), "exp".to_owned()];
        let id_token = format!("h.{payload}.s");
        let identity = Identity {
            id_token: Some(&id_token),
            claim_types: &types,
            ..Identity::default()
        };
        let claims = verified(&client_token(&connection(), &key(), "h", &identity, at(0)).unwrap());
        assert_eq!(claims["name"], "Ana");
        assert_eq!(claims["roles"], json!(["a", "b"]));
        assert_eq!(claims["asrs.u.exp"], 5);
        assert_eq!(claims["exp"], 3600);
        assert!(!claims.contains_key("secret"));
    }

    #[test]
    fn a_rest_token_names_the_call() {
        let token = rest_token(
            &connection(),
            &key(),
            "devbox_1",
            "/api/hubs/orders/:send?api-version=2022-06-01",
            at(0),
        )
        .unwrap();
        let claims = verified(&token);
        assert_eq!(claims["nameid"], "devbox_1");
        assert_eq!(
            claims["aud"],
            "http://localhost/api/hubs/orders/:send?api-version=2022-06-01"
        );
    }

    #[test]
    fn what_cannot_become_a_token_is_refused() {
        let types = ["a".to_owned()];
        for text in ["x", "a.b", "a.!.c", "a.bm8.c", "a.b.c.d"] {
            let identity = Identity {
                id_token: Some(text),
                claim_types: &types,
                ..Identity::default()
            };
            let error = client_token(&connection(), &key(), "h", &identity, at(0)).unwrap_err();
            assert!(matches!(error, TokenError::IdToken(_)), "{text}: {error}");
        }
        let long = "u".repeat(TOKEN_LENGTH_LIMIT);
        let identity = Identity {
            user_id: Some(&long),
            ..Identity::default()
        };
        let error = client_token(&connection(), &key(), "h", &identity, at(0)).unwrap_err();
        assert!(matches!(error, TokenError::TooLong(_)), "{error}");
    }
}
