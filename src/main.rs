//! geo-events.
fn main() {}
