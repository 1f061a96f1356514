//! The client's side: negotiate, and the life of one WebSocket connection
//! (`dotnet/aspnetcore: src/SignalR/docs/specs/TransportProtocols.md`).

use std::time::Duration;

use axum::{
    Json,
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tracing::{debug, warn};

use crate::{
    hub::{Goodbye, Hubs, Identity, Mailbox},
    protocol::{self, CLOSE, FromClient, INVOCATION, Records, STREAM_INVOCATION},
    server::Context,
};

/// The service says something at least this often; clients give up after twice the time.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A client that has sent a ping, and then nothing for this long, is gone.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take for its handshake, and to take what is sent to it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to answer the close frame.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest handshake and longest message of a client, in bytes.
const MAX_HANDSHAKE: usize = 32 * 1024;
const MAX_CLIENT_MESSAGE: usize = 1024 * 1024;

/// `POST /client/negotiate?hub=…&negotiateVersion=1`
pub(crate) fn negotiate(hubs: &Hubs, identity: Identity, version: u32) -> Response {
    let connection = identity.connection.clone();
    let Ok(token) = hubs.negotiate(identity, version) else {
        return crate::server::error(
            http::StatusCode::TOO_MANY_REQUESTS,
            "TooManyConnections",
            "this service holds as many connections as it may",
        );
    };
    let transports = json!([{"transport": "WebSockets", "transferFormats": ["Text"]}]);
    let body = if version == 0 {
        json!({"negotiateVersion": 0, "connectionId": token, "availableTransports": transports})
    } else {
        json!({
            "negotiateVersion": 1,
            "connectionId": connection,
            "connectionToken": token,
            "availableTransports": transports,
        })
    };
    Json(body).into_response()
}

/// How a connection came to its end, as far as the client has to be told.
enum End {
    /// The client is gone, or said goodbye.
    Gone,
    /// A protocol error of the client, which must not come back with the same.
    Error(String),
    /// The service's wish; the client may come back.
    Service(Option<String>),
}

/// Runs a connection from its handshake to its end.
pub(crate) async fn run(mut socket: WebSocket, identity: Identity, context: Context) {
    let mut records = Records::default();
    let shaken = tokio::select! {
        // There is no handshake answer that says "come back": a client takes the end of the socket for it.
        () = context.stop.cancelled() => return part(socket, None).await,
        shaken = timeout(HANDSHAKE_TIMEOUT, handshake(&mut socket, &mut records)) => shaken,
    };
    let pending = match shaken {
        Ok(Ok(pending)) => pending,
        Ok(Err(Some(error))) => return refuse(socket, &error).await,
        Ok(Err(None)) => return part(socket, None).await,
        Err(_) => return refuse(socket, "the handshake did not come in time").await,
    };
    let Ok(mut mailbox) = context.hubs.register(&identity, protocol::HANDSHAKE_DONE) else {
        return refuse(socket, "this service holds as many connections as it may").await;
    };
    debug!(
        hub = identity.hub,
        connection = identity.connection,
        "client connected"
    );
    let end = exchange(&mut socket, &mut mailbox, records, pending, &context).await;
    context.hubs.remove(&identity);
    debug!(
        hub = identity.hub,
        connection = identity.connection,
        "client disconnected"
    );
    match end {
        End::Gone => part(socket, None).await,
        End::Error(error) => part(socket, Some(protocol::close(Some(&error), false))).await,
        End::Service(reason) => {
            part(socket, Some(protocol::close(reason.as_deref(), true))).await;
        }
    }
}

/// Reads the handshake; returns the records that came with it. `Err(None)`: the client has gone.
async fn handshake(
    socket: &mut WebSocket,
    records: &mut Records,
) -> Result<Vec<String>, Option<String>> {
    loop {
        let text = match socket.recv().await {
            Some(Ok(message)) => text_of(message)?,
            Some(Err(_)) | None => return Err(None),
        };
        let Some(text) = text else { continue };
        let mut received = records
            .push(&text, MAX_HANDSHAKE)
            .map_err(|_| Some(format!("a handshake has at most {MAX_HANDSHAKE} bytes")))?;
        if !received.is_empty() {
            let first = received.remove(0);
            protocol::check_handshake(&first).map_err(Some)?;
            return Ok(received);
        }
    }
}

/// The payload of a message; `None` for pings and pongs, which axum answers by itself.
fn text_of(message: Message) -> Result<Option<Utf8Bytes>, Option<String>> {
    match message {
        Message::Text(text) => Ok(Some(text)),
        Message::Binary(bytes) => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Some(
                "this service speaks the JSON hub protocol, which is UTF-8 text".to_owned(),
            )),
        },
        Message::Close(_) => Err(None),
        Message::Ping(_) | Message::Pong(_) => Ok(None),
    }
}

async fn exchange(
    socket: &mut WebSocket,
    mailbox: &mut Mailbox,
    mut records: Records,
    pending: Vec<String>,
    context: &Context,
) -> End {
    let ended = mailbox.ended.clone();
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.reset();
    let mut heard = Instant::now();
    let mut pings = false;
    if let Err(end) = react_to_all(socket, pending, &mut pings, context).await {
        return end;
    }
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return End::Service(Some("the service is restarting".to_owned())),
            () = ended.cancelled() => {
                return End::Service(match mailbox.goodbye() {
                    Goodbye::Shutdown => None,
                    Goodbye::TooSlow => Some("this client does not read as fast as messages are sent to it".to_owned()),
                    Goodbye::Asked(reason) => reason,
                });
            }
            message = mailbox.next() => {
                let Some(message) = message else { return End::Gone };
                if !deliver(socket, message).await {
                    return End::Gone;
                }
                keep_alive.reset();
            }
            received = socket.recv() => {
                heard = Instant::now();
                let text = match received {
                    Some(Ok(message)) => match text_of(message) {
                        Ok(Some(text)) => text,
                        Ok(None) => continue,
                        Err(Some(error)) => return End::Error(error),
                        Err(None) => return End::Gone,
                    },
                    Some(Err(_)) | None => return End::Gone,
                };
                let Ok(received) = records.push(&text, MAX_CLIENT_MESSAGE) else {
                    return End::Error(format!("a message has at most {MAX_CLIENT_MESSAGE} bytes"));
                };
                if let Err(end) = react_to_all(socket, received, &mut pings, context).await {
                    return end;
                }
            }
            // Not a matter of the keep-alive, which rests while there is traffic.
            () = sleep_until(heard + CLIENT_TIMEOUT), if pings => {
                return End::Service(Some("the client has not been heard of for too long".to_owned()));
            }
            _ = keep_alive.tick() => {
                if !deliver(socket, protocol::PING).await {
                    return End::Gone;
                }
            }
        }
    }
}

async fn react_to_all(
    socket: &mut WebSocket,
    records: Vec<String>,
    pings: &mut bool,
    context: &Context,
) -> Result<(), End> {
    for record in records {
        if let Some(answer) = react(&record, pings, context)?
            && !deliver(socket, answer).await
        {
            return Err(End::Gone);
        }
    }
    Ok(())
}

/// What a client's message leads to: an answer, nothing, or the end.
fn react(record: &str, pings: &mut bool, context: &Context) -> Result<Option<Utf8Bytes>, End> {
    let Ok(message) = serde_json::from_str::<FromClient>(record) else {
        return Err(End::Error(
            "a message of the hub protocol is a JSON object with a numeric type".to_owned(),
        ));
    };
    match message.kind {
        INVOCATION | STREAM_INVOCATION => {
            let target = message.target.unwrap_or_default();
            context.warn_of_upstream(&target);
            Ok(message.invocation_id.map(|id| {
                protocol::failed(&id, &format!("{target:?} was not invoked: this local service has no upstream; call the app over HTTP"))
            }))
        }
        CLOSE => Err(End::Gone),
        6 => {
            *pings = true;
            Ok(None)
        }
        // Completions, stream items, cancellations and types of later versions answer nothing that was asked here.
        _ => Ok(None),
    }
}

async fn deliver(socket: &mut WebSocket, message: Utf8Bytes) -> bool {
    matches!(
        timeout(SEND_TIMEOUT, socket.send(Message::Text(message))).await,
        Ok(Ok(()))
    )
}

async fn refuse(socket: WebSocket, error: &str) {
    warn!(error, "SignalR handshake refused");
    part(socket, Some(protocol::handshake_error(error))).await;
}

/// Sends the last record, if there is one, and the close frame or the answer to the client's, and waits, for a while, for
/// the client to take them. A client that is gone already takes nothing, and that is no error.
async fn part(mut socket: WebSocket, last: Option<Utf8Bytes>) {
    let farewell = async {
        if let Some(last) = last
            && socket.send(Message::Text(last)).await.is_err()
        {
            return;
        }
        let close = CloseFrame {
            code: close_code::NORMAL,
            reason: Utf8Bytes::default(),
        };
        if let Err(cause) = socket.send(Message::Close(Some(close))).await {
            debug!(%cause, "no close frame was sent: the client has closed first");
        }
        while let Some(Ok(_)) = socket.recv().await {}
    };
    if timeout(FAREWELL_TIMEOUT, farewell).await.is_err() {
        debug!("a client did not answer the close frame in time");
    }
}
