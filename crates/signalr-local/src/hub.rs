//! Who is connected to which hub, as which user, in which groups, and the queue of what waits for each of them.
//!
//! One lock covers all of it, is never held across an await, and every send happens under it: so each connection gets the
//! messages of one sender in the order in which they were accepted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::extract::ws::Utf8Bytes;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that may wait for one client. A client that is further behind is closed and may reconnect.
pub(crate) const CLIENT_QUEUE: usize = 4096;

/// Bytes that may wait for one client, whatever the number of messages: each of them may have a megabyte.
pub(crate) const CLIENT_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Clients that may be connected at once.
pub(crate) const MAX_CONNECTIONS: usize = 20_000;

/// Hubs in use; a hub without connections and memberships makes room.
const MAX_HUBS: usize = 1_000;

/// Memberships of connections and users in the groups of one hub.
const MAX_MEMBERSHIPS: usize = 100_000;

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
    /// More than [`CLIENT_QUEUE`] messages or [`CLIENT_QUEUE_BYTES`] waited.
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
    /// Bytes in `queue`; added to under the lock of [`Hubs`] only.
    waiting: Arc<AtomicUsize>,
    goodbye: Arc<Mutex<Option<Goodbye>>>,
    ended: CancellationToken,
}

impl Member {
    /// Queues a message, or ends the connection when too much waits already.
    fn push(&self, message: &Utf8Bytes) -> bool {
        let size = message.len();
        let fits = self.waiting.fetch_add(size, Ordering::Relaxed) + size <= CLIENT_QUEUE_BYTES;
        let queued = fits && self.queue.try_send(message.clone()).is_ok();
        if !queued {
            self.end(Goodbye::TooSlow);
        }
        queued
    }

    fn end(&self, why: Goodbye) {
        lock(&self.goodbye).get_or_insert(why);
        self.ended.cancel();
    }
}

/// The connection's own end: what to send, and when to stop.
pub(crate) struct Mailbox {
    queue: mpsc::Receiver<Utf8Bytes>,
    waiting: Arc<AtomicUsize>,
    pub(crate) ended: CancellationToken,
    goodbye: Arc<Mutex<Option<Goodbye>>>,
}

impl Mailbox {
    /// The next message. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Option<Utf8Bytes> {
        let message = self.queue.recv().await?;
        self.waiting.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

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
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.groups.is_empty() && self.user_groups.is_empty()
    }

    /// Whether `more` memberships fit; those that have run out make room first.
    fn has_room_for(&mut self, more: usize) -> bool {
        if self.memberships() + more > MAX_MEMBERSHIPS {
            self.forget_expired(Instant::now());
        }
        self.memberships() + more <= MAX_MEMBERSHIPS
    }

    fn memberships(&self) -> usize {
        let direct: usize = self.groups.values().map(BTreeSet::len).sum();
        let of_users: usize = self.user_groups.values().map(BTreeMap::len).sum();
        direct + of_users
    }

    fn forget_expired(&mut self, now: Instant) {
        self.user_groups.retain(|_, users| {
            users.retain(|_, end| end.is_none_or(|end| now < end));
            !users.is_empty()
        });
    }

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

impl State {
    /// The hub of this name, made if there is none yet.
    fn hub(&mut self, name: &str) -> Result<&mut Hub, Full> {
        if !self.hubs.contains_key(name) && self.hubs.len() >= MAX_HUBS {
            self.hubs.retain(|_, hub| !hub.is_unused());
            if self.hubs.len() >= MAX_HUBS {
                return Err(Full);
            }
        }
        Ok(self.hubs.entry(name.to_owned()).or_default())
    }
}

/// The service holds as many connections, hubs or memberships as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Hubs {
    pub(crate) fn stats(&self) -> Stats {
        lock(&self.state).stats
    }

    /// Remembers a negotiated connection, and returns the token that opens it. Version 0 of the negotiation tells the client
    /// one name for both purposes, so there the token is the connection id.
    pub(crate) fn negotiate(&self, identity: Identity, version: u32) -> Result<String, Full> {
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
        let token = if version == 0 {
            identity.connection.clone()
        } else {
            random_id()
        };
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
        let waiting = Arc::new(AtomicUsize::new(first.len()));
        sender.try_send(first).map_err(|_| Full)?;
        let mailbox = Mailbox {
            queue,
            waiting: Arc::clone(&waiting),
            ended: CancellationToken::new(),
            goodbye: Arc::default(),
        };
        let member = Member {
            user: identity.user.clone(),
            queue: sender,
            waiting,
            goodbye: Arc::clone(&mailbox.goodbye),
            ended: mailbox.ended.clone(),
        };
        state
            .hub(&identity.hub)?
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
            if member.push(message) {
                sent += 1;
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
    pub(crate) fn join(&self, hub: &str, connection: &str, group: &str) -> Result<bool, Full> {
        let mut state = lock(&self.state);
        let Some(hub) = state
            .hubs
            .get_mut(hub)
            .filter(|hub| hub.connections.contains_key(connection))
        else {
            return Ok(false);
        };
        if !hub.has_room_for(1) {
            return Err(Full);
        }
        hub.groups
            .entry(group.to_owned())
            .or_default()
            .insert(connection.to_owned());
        Ok(true)
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
    pub(crate) fn join_user(
        &self,
        hub: &str,
        user: &str,
        group: &str,
        ttl: Option<Duration>,
    ) -> Result<(), Full> {
        let mut state = lock(&self.state);
        let hub = state.hub(hub)?;
        if ttl == Some(Duration::ZERO) {
            let connections = hub
                .recipients(&Recipients::User(user.to_owned()))
                .into_iter()
                .cloned()
                .collect::<Vec<_>>();
            if !hub.has_room_for(connections.len()) {
                return Err(Full);
            }
            if !connections.is_empty() {
                hub.groups
                    .entry(group.to_owned())
                    .or_default()
                    .extend(connections);
            }
            return Ok(());
        }
        if !hub.has_room_for(1) {
            return Err(Full);
        }
        let end = ttl.map(|ttl| Instant::now() + ttl);
        hub.user_groups
            .entry(group.to_owned())
            .or_default()
            .insert(user.to_owned(), end);
        Ok(())
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
        hubs.join_user("h", "ana", "g", None)
            .expect("there is room");
        let (ana, mut to_ana) = connect(&hubs, Some("ana"));
        let (bo, mut to_bo) = connect(&hubs, Some("bo"));
        let (_, mut to_nobody) = connect(&hubs, None);
        assert!(
            hubs.join("h", &ana.connection, "g") == Ok(true),
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

    #[tokio::test]
    async fn what_waits_for_a_client_is_bounded_in_bytes() {
        let hubs = Hubs::default();
        let (_, mut reading) = connect(&hubs, None);
        let (_, slow) = connect(&hubs, None);
        let megabyte = Utf8Bytes::from("x".repeat(1024 * 1024));
        for _ in 0..2 * CLIENT_QUEUE_BYTES / megabyte.len() {
            hubs.send("h", &Recipients::Everyone, &[], &megabyte);
            while reading.waiting.load(Ordering::Relaxed) > 0 {
                reading.next().await.expect("a message");
            }
        }
        assert!(
            slow.ended.is_cancelled() && slow.goodbye() == Goodbye::TooSlow,
            "eight megabytes wait, in few messages"
        );
        assert!(
            !reading.ended.is_cancelled(),
            "bytes that were read count no more"
        );
    }

    #[test]
    fn memberships_and_hubs_are_bounded_and_make_room_when_they_end() {
        let hubs = Hubs::default();
        for n in 0..MAX_MEMBERSHIPS / 2 {
            let join = |ttl| hubs.join_user("h", &format!("{n}-{ttl:?}"), "g", ttl);
            assert_eq!(join(None), Ok(()));
            assert_eq!(join(Some(Duration::from_secs(3600))), Ok(()));
        }
        assert_eq!(hubs.join_user("h", "late", "g", None), Err(Full));
        let (ana, _to_ana) = connect(&hubs, Some("ana"));
        assert_eq!(hubs.join("h", &ana.connection, "g"), Err(Full));
        let in_two_hours = Instant::now() + Duration::from_secs(7200);
        lock(&hubs.state)
            .hub("h")
            .expect("it is there")
            .forget_expired(in_two_hours);
        assert_eq!(hubs.join_user("h", "late", "g", None), Ok(()));

        for n in 1..MAX_HUBS {
            assert_eq!(hubs.join_user(&format!("h{n}"), "u", "g", None), Ok(()));
        }
        assert_eq!(hubs.join_user("one-more", "u", "g", None), Err(Full));
        hubs.leave_user("h1", "u", None);
        assert_eq!(hubs.join_user("one-more", "u", "g", None), Ok(()));
    }

    #[test]
    fn a_negotiated_connection_opens_once() {
        let hubs = Hubs::default();
        let token = hubs
            .negotiate(Identity::new("h", None), 1)
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
