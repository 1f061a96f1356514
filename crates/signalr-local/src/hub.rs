//! Who is connected to which hub, as which user, in which groups, and the queue of what waits for each of them.
//!
//! One lock covers all of it, is never held across an await, and every send happens under it: so each connection gets the
//! messages of one sender in the order in which they were accepted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::extract::ws::Utf8Bytes;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that may wait for one client. A client that is further behind is closed and may reconnect.
pub(crate) const CLIENT_QUEUE: usize = 4096;

/// Clients that may be connected at once.
pub(crate) const MAX_CONNECTIONS: usize = 20_000;

/// Negotiated connections that may wait for their WebSocket.
const MAX_NEGOTIATED: usize = 20_000;

/// A negotiated connection that nobody opens is forgotten after this time (as in ASP.NET Core).
const NEGOTIATED_LIFETIME: Duration = Duration::from_secs(15);

/// Counters of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients connected now.
    pub connections: u64,
    /// Messages handed to clients' queues since the start.
    pub messages: u64,
    /// Sends to everybody since the start.
    pub broadcasts: u64,
}

/// Why the service ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// The service stops.
    Shutdown,
    /// More than [`CLIENT_QUEUE`] messages waited.
    TooSlow,
    /// Somebody asked for it over REST, perhaps with a reason.
    Asked(Option<String>),
}

/// A connection as negotiated: who it will be.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) hub: String,
    pub(crate) connection: String,
    pub(crate) user: Option<String>,
}

impl Identity {
    pub(crate) fn new(hub: &str, user: Option<String>) -> Self {
        Self {
            hub: hub.to_lowercase(),
            connection: random_id(),
            user,
        }
    }
}

/// The service's end of a connection.
struct Member {
    user: Option<String>,
    queue: mpsc::Sender<Utf8Bytes>,
    goodbye: Arc<Mutex<Option<Goodbye>>>,
    ended: CancellationToken,
}

impl Member {
    fn end(&self, why: Goodbye) {
        lock(&self.goodbye).get_or_insert(why);
        self.ended.cancel();
    }
}

/// The connection's own end: what to send, and when to stop.
pub(crate) struct Mailbox {
    pub(crate) queue: mpsc::Receiver<Utf8Bytes>,
    pub(crate) ended: CancellationToken,
    goodbye: Arc<Mutex<Option<Goodbye>>>,
}

impl Mailbox {
    /// Why it has ended; meaningful once `ended` is cancelled.
    pub(crate) fn goodbye(&self) -> Goodbye {
        lock(&self.goodbye).clone().unwrap_or(Goodbye::Shutdown)
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipients {
    Everyone,
    User(String),
    Group(String),
    Connection(String),
}

#[derive(Default)]
struct Hub {
    connections: BTreeMap<String, Member>,
    /// Memberships of connections, by group.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Memberships of users, by group, with their end; they outlive connections.
    user_groups: BTreeMap<String, BTreeMap<String, Option<Instant>>>,
}

impl Hub {
    fn users_in(&self, group: &str) -> BTreeSet<&str> {
        let now = Instant::now();
        let members = self.user_groups.get(group).into_iter().flatten();
        members
            .filter(|(_, end)| end.is_none_or(|end| now < end))
            .map(|(user, _)| user.as_str())
            .collect()
    }

    fn recipients(&self, to: &Recipients) -> Vec<&String> {
        let of_users = |is: &dyn Fn(&str) -> bool| {
            let members = self.connections.iter();
            members
                .filter(|(_, member)| member.user.as_deref().is_some_and(is))
                .map(|(id, _)| id)
                .collect::<Vec<_>>()
        };
        match to {
            Recipients::Everyone => self.connections.keys().collect(),
            Recipients::Connection(id) => self
                .connections
                .get_key_value(id)
                .map(|(id, _)| id)
                .into_iter()
                .collect(),
            Recipients::User(user) => of_users(&|other| other == user),
            Recipients::Group(group) => {
                let users = self.users_in(group);
                let through_user = if users.is_empty() {
                    Vec::new()
                } else {
                    of_users(&|user| users.contains(user))
                };
                let direct = self.groups.get(group).into_iter().flatten();
                direct
                    .chain(through_user)
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            }
        }
    }
}

#[derive(Default)]
struct State {
    hubs: HashMap<String, Hub>,
    negotiated: HashMap<String, (Identity, Instant)>,
    stats: Stats,
}

/// All hubs of a service.
#[derive(Default)]
pub(crate) struct Hubs {
    state: Mutex<State>,
}

/// The service holds as many connections as it may.
#[derive(Debug)]
pub(crate) struct Full;

impl Hubs {
    pub(crate) fn stats(&self) -> Stats {
        lock(&self.state).stats
    }

    /// Remembers a negotiated connection, and returns the token that opens it.
    pub(crate) fn negotiate(&self, identity: Identity) -> Result<String, Full> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.negotiated.len() >= MAX_NEGOTIATED {
            state.negotiated.retain(|_, (_, end)| now < *end);
        }
        if state.negotiated.len() >= MAX_NEGOTIATED
            || state.stats.connections >= MAX_CONNECTIONS as u64
        {
            return Err(Full);
        }
        let token = random_id();
        state
            .negotiated
            .insert(token.clone(), (identity, now + NEGOTIATED_LIFETIME));
        Ok(token)
    }

    /// The connection that `token` opens; a token opens one connection, once.
    pub(crate) fn redeem(&self, token: &str) -> Option<Identity> {
        let (identity, end) = lock(&self.state).negotiated.remove(token)?;
        (Instant::now() < end).then_some(identity)
    }

    /// Adds a connection, with `first` ahead of every message that is sent to it from now on.
    pub(crate) fn register(&self, identity: &Identity, first: Utf8Bytes) -> Result<Mailbox, Full> {
        let mut state = lock(&self.state);
        if state.stats.connections >= MAX_CONNECTIONS as u64 {
            return Err(Full);
        }
        let (sender, queue) = mpsc::channel(CLIENT_QUEUE);
        sender.try_send(first).map_err(|_| Full)?;
        let mailbox = Mailbox {
            queue,
            ended: CancellationToken::new(),
            goodbye: Arc::default(),
        };
        let member = Member {
            user: identity.user.clone(),
            queue: sender,
            goodbye: Arc::clone(&mailbox.goodbye),
            ended: mailbox.ended.clone(),
        };
        state
            .hubs
            .entry(identity.hub.clone())
            .or_default()
            .connections
            .insert(identity.connection.clone(), member);
        state.stats.connections += 1;
        Ok(mailbox)
    }

    /// Forgets a connection and its own memberships; those of its user stay.
    pub(crate) fn remove(&self, identity: &Identity) {
        let mut state = lock(&self.state);
        let Some(hub) = state.hubs.get_mut(&identity.hub) else {
            return;
        };
        if hub.connections.remove(&identity.connection).is_some() {
            hub.groups.retain(|_, members| {
                members.remove(&identity.connection);
                !members.is_empty()
            });
            state.stats.connections -= 1;
        }
    }

    /// Puts a message into the queues of its recipients, but not of `excluded` connections.
    pub(crate) fn send(
        &self,
        hub: &str,
        to: &Recipients,
        excluded: &[String],
        message: &Utf8Bytes,
    ) {
        let mut state = lock(&self.state);
        if *to == Recipients::Everyone {
            state.stats.broadcasts += 1;
        }
        let Some(hub) = state.hubs.get(hub) else {
            return;
        };
        let mut sent = 0;
        for id in hub.recipients(to) {
            let member = &hub.connections[id];
            if excluded.contains(id) || member.ended.is_cancelled() {
                continue;
            }
            match member.queue.try_send(message.clone()) {
                Ok(()) => sent += 1,
                Err(_) => member.end(Goodbye::TooSlow),
            }
        }
        state.stats.messages += sent;
    }

    /// Ends the connections of the recipients.
    pub(crate) fn close(
        &self,
        hub: &str,
        who: &Recipients,
        excluded: &[String],
        reason: Option<String>,
    ) {
        let state = lock(&self.state);
        let Some(hub) = state.hubs.get(hub) else {
            return;
        };
        for id in hub.recipients(who) {
            if !excluded.contains(id) {
                hub.connections[id].end(Goodbye::Asked(reason.clone()));
            }
        }
    }

    /// Whether there is at least one live connection among `who`.
    pub(crate) fn exists(&self, hub: &str, who: &Recipients) -> bool {
        lock(&self.state)
            .hubs
            .get(hub)
            .is_some_and(|hub| !hub.recipients(who).is_empty())
    }

    /// Adds a connection to a group; `false` when there is no such connection.
    pub(crate) fn join(&self, hub: &str, connection: &str, group: &str) -> bool {
        let mut state = lock(&self.state);
        let Some(hub) = state
            .hubs
            .get_mut(hub)
            .filter(|hub| hub.connections.contains_key(connection))
        else {
            return false;
        };
        hub.groups
            .entry(group.to_owned())
            .or_default()
            .insert(connection.to_owned());
        true
    }

    /// Takes a connection out of one group, or of all; `false` when there is no such connection.
    pub(crate) fn leave(&self, hub: &str, connection: &str, group: Option<&str>) -> bool {
        let mut state = lock(&self.state);
        let Some(hub) = state
            .hubs
            .get_mut(hub)
            .filter(|hub| hub.connections.contains_key(connection))
        else {
            return false;
        };
        hub.groups.retain(|name, members| {
            if group.is_none_or(|group| group == name) {
                members.remove(connection);
            }
            !members.is_empty()
        });
        true
    }

    /// Adds a user to a group, present or not, for `ttl` or for good. Zero means: only the connections there are now.
    pub(crate) fn join_user(&self, hub: &str, user: &str, group: &str, ttl: Option<Duration>) {
        let mut state = lock(&self.state);
        let hub = state.hubs.entry(hub.to_owned()).or_default();
        if ttl == Some(Duration::ZERO) {
            let connections = hub
                .recipients(&Recipients::User(user.to_owned()))
                .into_iter()
                .cloned()
                .collect::<Vec<_>>();
            if !connections.is_empty() {
                hub.groups
                    .entry(group.to_owned())
                    .or_default()
                    .extend(connections);
            }
            return;
        }
        let end = ttl.map(|ttl| Instant::now() + ttl);
        hub.user_groups
            .entry(group.to_owned())
            .or_default()
            .insert(user.to_owned(), end);
    }

    /// Takes a user, and the connections it has, out of one group, or of all.
    pub(crate) fn leave_user(&self, hub: &str, user: &str, group: Option<&str>) {
        let mut state = lock(&self.state);
        let Some(hub) = state.hubs.get_mut(hub) else {
            return;
        };
        let connections = hub
            .recipients(&Recipients::User(user.to_owned()))
            .into_iter()
            .cloned()
            .collect::<BTreeSet<_>>();
        let meant = |name: &String| group.is_none_or(|group| group == name);
        hub.user_groups.retain(|name, users| {
            if meant(name) {
                users.remove(user);
            }
            !users.is_empty()
        });
        hub.groups.retain(|name, members| {
            if meant(name) {
                members.retain(|member| !connections.contains(member));
            }
            !members.is_empty()
        });
    }

    /// Whether the user is a member of the group.
    pub(crate) fn user_is_in(&self, hub: &str, user: &str, group: &str) -> bool {
        lock(&self.state)
            .hubs
            .get(hub)
            .is_some_and(|hub| hub.users_in(group).contains(user))
    }
}

/// The state stays whole at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random, at least 128 bits of it, in an alphabet that clients can paste into URLs unescaped.
fn random_id() -> String {
    let bytes = [
        uuid::Uuid::new_v4().into_bytes(),
        uuid::Uuid::new_v4().into_bytes(),
    ]
    .concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(hubs: &Hubs, user: Option<&str>) -> (Identity, Mailbox) {
        let identity = Identity::new("H", user.map(str::to_owned));
        let mailbox = hubs
            .register(&identity, Utf8Bytes::from_static("hello"))
            .expect("there is room");
        (identity, mailbox)
    }

    fn received(mailbox: &mut Mailbox) -> Vec<String> {
        std::iter::from_fn(|| mailbox.queue.try_recv().ok())
            .map(|text| text.to_string())
            .collect()
    }

    #[test]
    fn messages_reach_those_they_are_for_once() {
        let hubs = Hubs::default();
        hubs.join_user("h", "ana", "g", None);
        let (ana, mut to_ana) = connect(&hubs, Some("ana"));
        let (bo, mut to_bo) = connect(&hubs, Some("bo"));
        let (_, mut to_nobody) = connect(&hubs, None);
        assert!(
            hubs.join("h", &ana.connection, "g"),
            "in the group by itself and through its user"
        );
        let send = |to, excluded: &[String], text| {
            hubs.send("h", &to, excluded, &Utf8Bytes::from_static(text))
        };
        send(Recipients::Everyone, &[], "all");
        send(Recipients::User("bo".into()), &[], "bo");
        send(Recipients::Group("g".into()), &[], "group");
        send(
            Recipients::Connection(bo.connection.clone()),
            &[],
            "connection",
        );
        send(
            Recipients::Everyone,
            &[ana.connection.clone(), bo.connection],
            "others",
        );
        assert_eq!(received(&mut to_ana), ["hello", "all", "group"]);
        assert_eq!(received(&mut to_bo), ["hello", "all", "bo", "connection"]);
        assert_eq!(received(&mut to_nobody), ["hello", "all", "others"]);
        assert_eq!(
            hubs.stats(),
            Stats {
                connections: 3,
                messages: 7,
                broadcasts: 2
            }
        );

        hubs.leave_user("h", "ana", Some("g"));
        send(Recipients::Group("g".into()), &[], "empty");
        assert_eq!(received(&mut to_ana), [""; 0]);
        hubs.remove(&ana);
        assert!(!hubs.exists("h", &Recipients::User("ana".into())));
    }

    #[test]
    fn a_client_that_does_not_read_is_closed_and_others_are_not() {
        let hubs = Hubs::default();
        let (_, slow) = connect(&hubs, None);
        for _ in 0..CLIENT_QUEUE {
            hubs.send(
                "h",
                &Recipients::Everyone,
                &[],
                &Utf8Bytes::from_static("x"),
            );
        }
        let (_, quick) = connect(&hubs, None);
        hubs.send(
            "h",
            &Recipients::Everyone,
            &[],
            &Utf8Bytes::from_static("x"),
        );
        assert!(slow.ended.is_cancelled() && slow.goodbye() == Goodbye::TooSlow);
        assert!(!quick.ended.is_cancelled());
    }

    #[test]
    fn a_negotiated_connection_opens_once() {
        let hubs = Hubs::default();
        let token = hubs
            .negotiate(Identity::new("h", None))
            .expect("there is room");
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
            "{token}"
        );
        assert!(hubs.redeem(&token).is_some());
        assert!(hubs.redeem(&token).is_none());
    }
}
