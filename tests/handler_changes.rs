//! `changes` and `health` against Cosmos DB: real SDK, real HTTP, two regions on this machine.
#![cfg(feature = "local")]

use std::collections::BTreeSet;

use azure_data_cosmos::clients::ContainerClient;
use cosmos_local::{Account, CosmosLocal, RegionConfig};
use geo_events::{
    cosmos,
    event::Probe,
    functions::{App, Function, invoke},
    names::{DATABASE, EVENTS},
    provision,
    settings::{RegionName, Settings},
    telemetry::InvocationSpan,
};
use serde_json::{Value, json};
use uuid::Uuid;

const HERE: &str = "West US";
const THERE: &str = "North Europe";

struct World {
    account: Account,
    events: ContainerClient,
    app: App,
}

impl World {
    async fn start() -> Self {
        let account = CosmosLocal::builder()
            .region(RegionConfig::new(HERE).port(0))
            .region(RegionConfig::new(THERE).port(0))
            .start()
            .await
            .expect("the account starts");
        provision::run(&account.connection_string())
            .await
            .expect("creates what is missing");
        let events = cosmos::connect(&account.connection_string(), &[HERE.to_owned()])
            .await
            .expect("connects")
            .container(DATABASE, EVENTS)
            .await
            .expect("exists");
        let app = app(HERE, &account.connection_string());
        Self {
            account,
            events,
            app,
        }
    }

    async fn write(&self, n: u32) {
        let id = format!("e-{n:03}");
        let event = json!({
            "id": id, "deviceId": format!("dev-{}", n % 3), "region": HERE, "value": n, "time": "2026-03-01T10:00:00.000Z",
        });
        self.events
            .upsert_item(&id, &id, &event, None)
            .await
            .expect("written");
    }

    async fn changes(&self, query: Value) -> (u64, Value) {
        ask(&self.app, Function::Changes, query).await
    }

    /// Follows the continuation until there is no more; says how many answers it took.
    async fn drain(&self, continuation: Option<&str>, limit: u32) -> (Vec<Value>, String, usize) {
        let mut continuation = continuation.map(str::to_owned);
        let mut events = Vec::new();
        for answers in 1..1000 {
            let query = json!({"continuation": continuation.as_deref().unwrap_or_default(), "limit": limit.to_string()});
            let (status, answer) = self.changes(query).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["region"], HERE);
            let page = answer["events"].as_array().expect("events");
            assert!(page.len() <= limit as usize, "{} events", page.len());
            events.extend(page.iter().cloned());
            let next = answer["continuation"]
                .as_str()
                .expect("a continuation")
                .to_owned();
            if answer["hasMore"] == false {
                return (events, next, answers);
            }
            continuation = Some(next);
        }
        panic!("the changes do not end");
    }
}

fn app(region: &str, connection_string: &str) -> App {
    let mut settings = Settings::of_region(region);
    settings.cosmos = Some(connection_string.parse().expect("a connection string"));
    settings.preferred_locations = [HERE, THERE].map(RegionName::new).to_vec();
    App::new(settings)
}

async fn ask(app: &App, function: Function, query: Value) -> (u64, Value) {
    let body = json!({"Data": {"req": {"Method": "GET", "Query": query}}}).to_string();
    let reply = invoke(
        function,
        app,
        body.as_bytes(),
        &mut InvocationSpan::unobserved(),
    )
    .await
    .expect("a reply");
    let reply: Value = serde_json::from_slice(&reply).expect("JSON");
    let res = &reply["Outputs"]["res"];
    let body = serde_json::from_str(res["body"].as_str().expect("text")).expect("JSON");
    (res["statusCode"].as_u64().expect("a status"), body)
}

fn ids(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn a_client_that_follows_its_continuation_misses_nothing() {
    let world = World::start().await;
    world.write(0).await;
    let (status, now) = world.changes(json!({"continuation": "now"})).await;
    assert_eq!(
        (status, &now["events"], &now["hasMore"]),
        (200, &json!([]), &json!(false))
    );
    let now = now["continuation"].as_str().expect("a continuation");

    for n in 1..=25 {
        world.write(n).await;
    }
    let expected: Vec<_> = (1..=25).map(|n| format!("e-{n:03}")).collect();
    let (events, end, _) = world.drain(Some(now), 100).await;
    assert_eq!(ids(&events), expected);
    // The same token again gives the same events: nothing is consumed.
    assert_eq!(world.drain(Some(now), 7).await.0, events);
    assert_eq!(world.drain(Some(&end), 100).await.0, Vec::<Value>::new());
    world.write(26).await;
    assert_eq!(ids(&world.drain(Some(&end), 100).await.0), ["e-026"]);
    world.account.shutdown().await;
}

#[tokio::test]
async fn pages_from_the_beginning_have_every_event_once_and_no_stranger() {
    let world = World::start().await;
    for n in 0..40 {
        world.write(n).await;
        if n % 10 == 0 {
            let probe = Probe::new(Uuid::from_u128(n.into()));
            world
                .events
                .upsert_item(&probe.id, &probe.id, &probe, None)
                .await
                .expect("written");
            let id = format!("stranger-{n}");
            world
                .events
                .upsert_item(&id, &id, &json!({"id": id}), None)
                .await
                .expect("written");
        }
    }
    let (events, _, answers) = world.drain(None, 6).await;
    let unique: BTreeSet<_> = ids(&events).into_iter().collect();
    assert_eq!(unique.len(), events.len(), "an event comes twice");
    assert_eq!(events.len(), 40);
    assert!(answers >= 40 / 6, "{answers} answers of at most 6 events");
    assert_eq!(
        events[7],
        json!({"id": "e-007", "deviceId": "dev-1", "region": HERE, "value": 7, "time": "2026-03-01T10:00:00.000Z"})
    );
    world.account.shutdown().await;
}

#[tokio::test]
async fn a_continuation_of_another_region_is_refused_by_name() {
    let world = World::start().await;
    let (_, answer) = world.changes(json!({"continuation": "now"})).await;
    let there = app(THERE, &world.account.connection_string());
    let (status, problem) = ask(
        &there,
        Function::Changes,
        json!({"continuation": answer["continuation"]}),
    )
    .await;
    assert_eq!(status, 400);
    assert_eq!(problem["errors"][0]["path"], "continuation");
    let message = problem["errors"][0]["message"].as_str().expect("text");
    assert!(
        message.contains("belongs to West US") && message.contains("continuation=now"),
        "{message}"
    );
    world.account.shutdown().await;
}

#[tokio::test]
async fn a_container_that_was_made_anew_ends_old_continuations_and_nothing_else() {
    let world = World::start().await;
    world.write(1).await;
    let (_, answer) = world.changes(json!({})).await;
    let connection_string = world.account.connection_string();
    let cosmos = cosmos::connect(&connection_string, &[])
        .await
        .expect("connects");
    cosmos
        .database(DATABASE)
        .delete(None)
        .await
        .expect("deleted");
    provision::run(&connection_string)
        .await
        .expect("created anew");

    let (status, fresh) = world.changes(json!({})).await;
    assert_eq!((status, &fresh["events"]), (200, &json!([])), "{fresh}");
    let (status, problem) = world
        .changes(json!({"continuation": answer["continuation"]}))
        .await;
    assert_eq!(status, 400, "{problem}");
    assert_eq!(problem["errors"][0]["path"], "continuation");
    world.account.shutdown().await;
}

#[tokio::test]
async fn provisioning_again_changes_nothing() {
    let world = World::start().await;
    world.write(1).await;
    provision::run(&world.account.connection_string())
        .await
        .expect("everything is there");
    assert_eq!(ids(&world.drain(None, 10).await.0), ["e-001"]);
    world.account.shutdown().await;
}

#[tokio::test]
async fn health_says_which_region_of_the_account_answers() {
    let world = World::start().await;
    let (status, health) = ask(&world.app, Function::Health, json!({})).await;
    assert_eq!(status, 200, "{health}");
    assert_eq!(
        health,
        json!({"status": "ok", "region": HERE, "version": env!("CARGO_PKG_VERSION"), "cosmosRegion": HERE})
    );

    world
        .account
        .set_region_online(HERE, false)
        .await
        .expect("known");
    tokio::time::sleep(geo_events::functions::health::FRESH).await;
    let (status, health) = ask(&world.app, Function::Health, json!({})).await;
    assert_eq!(
        (status, &health["cosmosRegion"]),
        (200, &json!(THERE)),
        "{health}"
    );

    world
        .account
        .set_region_online(THERE, false)
        .await
        .expect("known");
    tokio::time::sleep(geo_events::functions::health::FRESH).await;
    let (status, problem) = ask(&world.app, Function::Health, json!({})).await;
    assert_eq!(status, 503, "{problem}");
    world.account.shutdown().await;
}

#[tokio::test]
async fn an_account_that_cannot_be_reached_is_a_503_until_it_can() {
    let world = World::start().await;
    let connection_string = world.account.connection_string();
    world.account.shutdown().await;
    let app = app(HERE, &connection_string);
    for function in [Function::Changes, Function::Health] {
        let (status, problem) = ask(&app, function, json!({})).await;
        assert_eq!(status, 503, "{problem}");
        assert_eq!(problem["title"], "Cosmos DB unavailable");
        let key = connection_string
            .split("AccountKey=")
            .nth(1)
            .expect("a key")
            .trim_end_matches(';');
        assert!(!problem.to_string().contains(key), "the key is told");
    }
}
