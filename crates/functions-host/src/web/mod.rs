//! The HTTP side: routes, requests as triggers, replies as responses, CORS and the admin endpoints.

pub(crate) mod admin;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod server;
