//! Responses, and errors in the shape `{"code", "message"}` that every SDK reads.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// A response before it gets the headers that all have.
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// In request units.
    charge: f64,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            charge: 1.0,
        }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, body.to_string())
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::new(status, String::new())
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub(crate) fn charge(mut self, charge: f64) -> Self {
        self.charge = charge;
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn substatus(&self) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| *name == "x-ms-substatus")
            .map(|(_, value)| value.as_str())
    }

    /// Request units that it costs.
    pub(crate) fn cost(&self) -> f64 {
        self.charge
    }

    pub(crate) fn into_response(self, activity: &str, head: bool) -> Response<Full<Bytes>> {
        let body = if self.status.is_client_error() || self.status.is_server_error() {
            // An error's body is text, see `ApiError::into_reply`.
            let text = String::from_utf8_lossy(&self.body);
            Bytes::from(text.replace(ACTIVITY, activity))
        } else {
            self.body
        };
        let mut response = Response::new(Full::new(if head { Bytes::new() } else { body }));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let common = [
            ("x-ms-activity-id", activity.to_owned()),
            ("x-ms-request-charge", format!("{:.2}", self.charge)),
        ];
        for (name, value) in self.headers.into_iter().chain(common) {
            // Values come from numbers, base64 and names that were checked; one that is no header value is left out.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Stands for the activity id until it is known.
const ACTIVITY: &str = "{activity}";

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    substatus: u32,
    message: String,
    additional: Option<String>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            substatus: 0,
            message: message.into(),
            additional: None,
            retry_after: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Something that the service has and this one has not.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what} is not supported by cosmos-local yet"),
        )
    }

    #[must_use]
    pub(crate) fn substatus(mut self, substatus: u32) -> Self {
        self.substatus = substatus;
        self
    }

    /// Text of the member `additionalErrorInfo`.
    #[must_use]
    pub(crate) fn additional(mut self, text: String) -> Self {
        self.additional = Some(text);
        self
    }

    /// When to try again.
    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Status and substatus, for a place in a batch.
    pub(crate) fn codes(&self) -> (StatusCode, u32) {
        (self.status, self.substatus)
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::CONFLICT => "Conflict",
            StatusCode::GONE => "Gone",
            StatusCode::PRECONDITION_FAILED => "PreconditionFailed",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::REQUEST_TIMEOUT => "RequestTimeout",
            status if status.as_u16() == 449 => "RetryWith",
            StatusCode::NOT_IMPLEMENTED => "NotImplemented",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            _ => "InternalServerError",
        }
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut body = json!({"code": self.code(), "message": format!("{}\r\nActivityId: {ACTIVITY}", self.message)});
        if let Some(additional) = self.additional {
            body["additionalErrorInfo"] = additional.into();
        }
        let mut reply = Reply::json(self.status, &body);
        if self.substatus != 0 {
            reply = reply.header("x-ms-substatus", self.substatus.to_string());
        }
        if let Some(wait) = self.retry_after {
            // Rounded up, so that nobody comes back too early, and never at once.
            let wait = wait.as_micros().div_ceil(1000).max(1);
            reply = reply.header("x-ms-retry-after-ms", wait.to_string());
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_come_back_too_early() {
        for (micros, expected) in [
            (0, "1"),
            (1, "1"),
            (1000, "1"),
            (1001, "2"),
            (250_900, "251"),
        ] {
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "")
                .retry_after(Duration::from_micros(micros));
            let response = error.into_reply().into_response("a", false);
            assert_eq!(response.headers()["x-ms-retry-after-ms"], expected);
        }
    }
}
