//! The official Rust SDK, unmodified, against several regions over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Instant;

use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosClientBuilder, CosmosError, CosmosRuntime, PartitionKey,
    Query, RoutingStrategy, TransactionalBatch,
    clients::ContainerClient,
    diagnostics::DiagnosticsContext,
    feed::{ContinuationToken, FeedScope},
    models::{ContainerProperties, PartitionKeyDefinition},
    options::{
        ChangeFeedMode, ChangeFeedOptions, ChangeFeedStartFrom, ItemWriteOptions, MaxItemCountHint,
        OperationOptions, Precondition, QueryOptions, Region, ThrottlingRetryOptionsBuilder,
    },
};
use cosmos_local::{
    Account, Availability, ControlError, CosmosLocal, EMULATOR_KEY, Failover, LinkState,
    RegionConfig, WriteMode,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

mod support;

use support::{REGIONS, set_links, settled};

/// Physical partitions of a container: so many that clients have something to merge.
const PARTITIONS: u32 = 3;

async fn start(regions: &[&str]) -> Account {
    start_with(regions, PARTITIONS).await
}

async fn start_with(regions: &[&str], partitions: u32) -> Account {
    let builder = support::builder(regions.len()).check_dates(true);
    let account = builder.partitions(partitions).start().await.unwrap();
    provision(&account).await;
    account
}

async fn provision(account: &Account) {
    let client = client(account, &[]).await;
    client.create_database("shop", None).await.unwrap();
    let properties = ContainerProperties::new("orders", PartitionKeyDefinition::from("/tenant"));
    client
        .database_client("shop")
        .create_container(properties, None)
        .await
        .unwrap();
}

async fn client(account: &Account, preferred: &[&str]) -> CosmosClient {
    build(CosmosClient::builder(), account, preferred).await
}

/// A client as in a process of its own: those of one process share what they have heard of an account's regions.
async fn newcomer(account: &Account, preferred: &[&str]) -> CosmosClient {
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    let builder = CosmosClient::builder().with_runtime(runtime);
    build(builder, account, preferred).await
}

async fn build(
    builder: CosmosClientBuilder,
    account: &Account,
    preferred: &[&str],
) -> CosmosClient {
    let reference = AccountReference::with_authentication_key(
        account.endpoint().parse().unwrap(),
        EMULATOR_KEY,
    );
    let preferred = preferred.iter().map(|name| region(name)).collect();
    builder
        .build(reference, RoutingStrategy::PreferredRegions(preferred))
        .await
        .unwrap()
}

async fn orders(account: &Account, preferred: &[&str]) -> ContainerClient {
    orders_of(&client(account, preferred).await).await
}

async fn orders_of(client: &CosmosClient) -> ContainerClient {
    client
        .database_client("shop")
        .container_client("orders", None)
        .await
        .unwrap()
}

/// Writes an item; returns the regions that have answered.
async fn put(container: &ContainerClient, id: &str) -> Vec<Region> {
    let item = json!({"id": id, "tenant": "t1"});
    let written = container.upsert_item("t1", id, item, None).await.unwrap();
    answered(&written.diagnostics())
}

/// The regions that have answered for an operation.
fn answered(diagnostics: &DiagnosticsContext) -> Vec<Region> {
    let regions = diagnostics.responded_regions().into_iter();
    regions.cloned().collect()
}

fn region(name: &str) -> Region {
    Region::new(name.to_owned())
}

async fn read(container: &ContainerClient, id: &str) -> Result<Value, CosmosError> {
    container.read_item("t1", id, None).await?.into_model()
}

/// Drains the change feed; returns the ids, and the token of the place where it ended.
async fn changes(container: &ContainerClient, token: Option<String>) -> (Vec<String>, String) {
    all_changes(container, token, PARTITIONS as usize).await
}

/// Drains the change feed of a container with so many partitions, which take turns.
async fn all_changes(
    container: &ContainerClient,
    token: Option<String>,
    partitions: usize,
) -> (Vec<String>, String) {
    let mut options = ChangeFeedOptions::default();
    if let Some(token) = token {
        options = options.with_continuation_token(ContinuationToken::from_string(token));
    }
    let mut pages = container
        .query_change_feed::<Value>(
            FeedScope::full_container(),
            ChangeFeedStartFrom::Beginning,
            Some(options),
        )
        .await
        .unwrap();
    let (mut ids, mut empty) = (Vec::new(), 0);
    while empty < partitions {
        let Some(page) = pages.next().await else {
            break;
        };
        let page = page.unwrap();
        empty = if page.items().is_empty() {
            empty + 1
        } else {
            0
        };
        ids.extend(
            page.items()
                .iter()
                .map(|item| item.current().unwrap()["id"].as_str().unwrap().to_owned()),
        );
    }
    (
        ids,
        pages.to_continuation_token().unwrap().as_str().to_owned(),
    )
}

#[tokio::test]
async fn items_are_created_read_replaced_and_deleted() {
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let order = json!({"id": "o-1", "tenant": "t1", "total": 1.5, "big": 9_007_199_254_740_993_i64, "text": "ü"});
    orders.create_item("t1", "o-1", &order, None).await.unwrap();
    let stored = read(&orders, "o-1").await.unwrap();
    for (name, value) in order.as_object().unwrap() {
        assert_eq!(stored[name], *value);
    }
    let again = orders
        .create_item("t1", "o-1", &order, None)
        .await
        .unwrap_err();
    assert!(again.status().is_conflict(), "{again}");

    let etag = stored["_etag"].as_str().unwrap().to_owned();
    let conditional =
        || ItemWriteOptions::default().with_precondition(Precondition::if_match(etag.clone()));
    let changed = json!({"id": "o-1", "tenant": "t1", "total": 2});
    orders
        .replace_item("t1", "o-1", &changed, Some(conditional()))
        .await
        .unwrap();
    let stale = orders
        .replace_item("t1", "o-1", &changed, Some(conditional()))
        .await
        .unwrap_err();
    assert!(stale.status().is_precondition_failed(), "{stale}");
    let elsewhere = orders
        .upsert_item("t2", "o-1", &changed, None)
        .await
        .unwrap_err();
    assert!(
        elsewhere.to_string().contains("400"),
        "the header's key is not the document's: {elsewhere}"
    );

    orders.delete_item("t1", "o-1", None).await.unwrap();
    assert!(
        read(&orders, "o-1")
            .await
            .unwrap_err()
            .status()
            .is_not_found()
    );
    assert!(
        orders
            .delete_item("t1", "o-1", None)
            .await
            .unwrap_err()
            .status()
            .is_not_found()
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_feed_goes_on_from_its_token_and_what_arrives_late_comes_late() {
    let account = start(&REGIONS[..2]).await;
    let west = orders(&account, &["West US"]).await;
    let north = orders(&account, &["North Europe"]).await;
    let (none, token) = changes(&north, None).await;
    assert_eq!(none, [""; 0]);
    put(&west, "a").await;
    settled(&account).await;
    read(&north, "a").await.unwrap();
    let (ids, token) = changes(&north, Some(token)).await;
    assert_eq!(ids, ["a"]);

    set_links(&account, LinkState::Cut);
    put(&west, "late").await;
    put(&north, "b").await;
    let (ids, token) = changes(&north, Some(token)).await;
    assert_eq!(ids, ["b"]);
    assert!(
        account.links().iter().all(|link| link.pending == 1),
        "{:?}",
        account.links()
    );
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let (ids, _) = changes(&north, Some(token)).await;
    assert_eq!(ids, ["late"]);
    account.shutdown().await;
}

#[tokio::test]
async fn a_client_goes_to_the_next_region_when_its_own_is_offline_and_misses_nothing() {
    let account = start(&REGIONS[..2]).await;
    let west = orders(&account, &["West US", "North Europe"]).await;
    let north = orders(&account, &["North Europe"]).await;
    let served = async |container: &ContainerClient, id: &str| {
        let read = container.read_item("t1", id, None).await.unwrap();
        answered(&read.diagnostics())
    };
    assert_eq!(put(&west, "a").await, [region("West US")]);
    let (_, token) = changes(&west, None).await;
    assert_eq!(put(&north, "b").await, [region("North Europe")]);
    settled(&account).await;
    account.set_region_online("West US", false).await.unwrap();
    assert_eq!(put(&west, "c").await, [region("North Europe")]);
    assert_eq!(served(&west, "a").await, [region("North Europe")]);
    let (ids, _) = changes(&west, Some(token)).await;
    assert!(
        ["b", "c"].iter().all(|new| ids.iter().any(|id| id == new)),
        "{ids:?}"
    );

    account.set_region_online("West US", true).await.unwrap();
    settled(&account).await;
    assert_eq!(account.item_count("West US", "shop", "orders"), Some(3));
    // Who was there during the outage looks once a minute whether the region is back; who comes later goes there at once.
    let back = newcomer(&account, &["West US", "North Europe"]).await;
    let back = orders_of(&back).await;
    assert_eq!(served(&back, "c").await, [region("West US")]);
    assert_eq!(put(&back, "d").await, [region("West US")]);
    account.shutdown().await;
}

#[tokio::test]
async fn conflicting_writes_end_in_the_same_document_everywhere() {
    let account = start(&REGIONS).await;
    set_links(&account, LinkState::Cut);
    let mut clients = Vec::new();
    for name in REGIONS {
        let container = orders(&account, &[name]).await;
        container
            .upsert_item(
                "t1",
                "x",
                json!({"id": "x", "tenant": "t1", "from": name}),
                None,
            )
            .await
            .unwrap();
        clients.push(container);
    }
    let links = account.links();
    assert!(
        links.iter().all(|link| link.pending == 1),
        "each region has accepted its own: {links:?}"
    );
    set_links(&account, LinkState::Open);
    settled(&account).await;
    let first = read(&clients[0], "x").await.unwrap();
    for client in &clients[1..] {
        assert_eq!(read(client, "x").await.unwrap(), first);
    }
    account.shutdown().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = |regions: &[&str]| {
        let builder = CosmosLocal::builder()
            .data_dir(Some(folder.path().to_owned()))
            .partitions(PARTITIONS);
        regions
            .iter()
            .fold(builder, |builder, name| {
                builder.region(RegionConfig::new(*name))
            })
            .start()
    };
    let token = {
        let account = open(&REGIONS[..2]).await.unwrap();
        provision(&account).await;
        let west = orders(&account, &["West US"]).await;
        set_links(&account, LinkState::Cut);
        put(&west, "a").await;
        let (_, token) = changes(&west, None).await;
        put(&west, "b").await;
        account.shutdown().await;
        token
    };
    let wrong = open(&REGIONS[..1]).await.unwrap_err().to_string();
    assert!(
        wrong.contains("North Europe"),
        "no region is left out: {wrong}"
    );
    let account = open(&REGIONS[..2]).await.unwrap();
    let west = orders(&account, &["West US"]).await;
    let (ids, _) = changes(&west, Some(token)).await;
    assert_eq!(ids, ["b"], "the feed goes on from an old token");
    settled(&account).await;
    assert_eq!(
        account.item_count("North Europe", "shop", "orders"),
        Some(2),
        "so does replication"
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_region_that_is_added_has_what_was_before_it_and_takes_part() {
    let account = start(&REGIONS[..2]).await;
    let west = orders(&account, &["West US"]).await;
    let before: Vec<String> = (0..250).map(|n| format!("o-{n:03}")).collect();
    for id in &before {
        put(&west, id).await;
    }
    west.delete_item("t1", "o-249", None).await.unwrap();
    let before = &before[..249];
    // Neither this nor what is on its way depends on the old links.
    set_links(&account, LinkState::Cut);
    let added = RegionConfig::new("Southeast Asia");
    let status = account.add_region(added).await.unwrap();
    assert!(status.online && status.writable);

    let asia = orders_of(&newcomer(&account, &["Southeast Asia", "West US"]).await).await;
    for id in [&before[0], &before[248]] {
        read(&asia, id).await.unwrap();
    }
    assert!(
        read(&asia, "o-249")
            .await
            .unwrap_err()
            .status()
            .is_not_found()
    );
    let (ids, token) = changes(&asia, None).await;
    assert_eq!(ids, before);
    set_links(&account, LinkState::Cut);
    put(&asia, "born in Asia").await;
    let counts = || REGIONS.map(|region| account.item_count(region, "shop", "orders").unwrap());
    assert_eq!(counts()[2], 250, "it is written where the client wants it");
    assert!(read(&west, "born in Asia").await.is_err());
    set_links(&account, LinkState::Open);
    settled(&account).await;
    assert_eq!(counts(), [250; 3]);
    read(&west, "born in Asia").await.unwrap();
    put(&west, "born in West").await;
    settled(&account).await;
    let (ids, token) = changes(&asia, Some(token)).await;
    assert_eq!(ids, ["born in Asia", "born in West"]);

    // Its clients go elsewhere when it is removed, with what they know.
    account.remove_region("Southeast Asia").await.unwrap();
    put(&asia, "after Asia").await;
    read(&asia, "born in Asia").await.unwrap();
    settled(&account).await;
    let (ids, _) = changes(&asia, Some(token)).await;
    assert!(ids.contains(&"after Asia".to_owned()), "{ids:?}");
    assert_eq!(account.item_count("West US", "shop", "orders"), Some(252));
    account.shutdown().await;
}

/// All rows of a query.
async fn rows(container: &ContainerClient, query: &Query, scope: FeedScope) -> Vec<Value> {
    let items = container
        .query_items::<Value>(query.clone(), scope, None)
        .await
        .unwrap();
    items.map(|item| item.unwrap()).collect().await
}

/// Why a query has no rows.
async fn refusal(container: &ContainerClient, text: &str, scope: FeedScope) -> CosmosError {
    let items = container.query_items::<Value>(Query::from(text), scope, None);
    match items.await {
        Err(error) => error,
        Ok(mut items) => items.next().await.unwrap().unwrap_err(),
    }
}

#[tokio::test]
async fn queries_run_in_a_partition_and_across_all() {
    const TENANTS: usize = 16;
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let total = |n: usize| n * 7 % 40;
    for n in 0..40 {
        let (id, tenant) = (format!("o-{n:02}"), format!("t{}", n % TENANTS));
        let order = json!({
            "id": id, "tenant": tenant, "total": total(n), "kind": (["book", "pen"][n / 20]),
            "lines": [{"sku": format!("s{}", n % 4), "count": n % 3}],
        });
        orders.upsert_item(tenant, &id, order, None).await.unwrap();
    }
    let feed_ranges = orders.read_feed_ranges(None).await.unwrap();
    assert_eq!(feed_ranges.len(), PARTITIONS as usize);
    for range in feed_ranges {
        let everything = Query::from("SELECT * FROM c");
        let rows = rows(&orders, &everything, FeedScope::range(range)).await;
        assert!(rows.len() < 40 && !rows.is_empty(), "{}", rows.len());
    }
    let own = FeedScope::partition("t1");
    let all = FeedScope::full_container();
    let id = |n: usize| json!(format!("o-{n:02}"));
    let by_total = |least: usize| {
        let mut numbers: Vec<usize> = (0..40).filter(|n| total(*n) >= least).collect();
        numbers.sort_by_key(|n| std::cmp::Reverse(total(*n)));
        numbers.into_iter()
    };
    let of_t1 = |n: &usize| n % TENANTS == 1;
    let sum = |kind: usize| -> usize {
        let numbers = (0..40).filter(of_t1).filter(|n| n / 20 == kind);
        numbers.map(total).sum()
    };
    let cases = [
        (
            "SELECT TOP 3 VALUE c.total FROM c WHERE c.tenant = 't1' ORDER BY c.total DESC",
            own.clone(),
            by_total(0)
                .filter(of_t1)
                .take(3)
                .map(|n| json!(total(n)))
                .collect(),
        ),
        (
            "SELECT VALUE c.id FROM c WHERE c.total >= 30 ORDER BY c.total DESC",
            all.clone(),
            by_total(30).map(id).collect(),
        ),
        (
            "SELECT TOP 4 VALUE c.id FROM c ORDER BY c.total DESC",
            all.clone(),
            by_total(0).take(4).map(id).collect(),
        ),
        (
            "SELECT VALUE c.id FROM c ORDER BY c.total DESC OFFSET 5 LIMIT 6",
            all.clone(),
            by_total(0).skip(5).take(6).map(id).collect(),
        ),
        (
            "SELECT VALUE c.total FROM c WHERE c.total BETWEEN 4 AND 6 ORDER BY c.kind, c.total DESC",
            all.clone(),
            vec![json!(6), json!(4), json!(5)],
        ),
        (
            "SELECT DISTINCT VALUE c.kind FROM c ORDER BY c.kind",
            all.clone(),
            vec![json!("book"), json!("pen")],
        ),
        (
            "SELECT l.sku, c.total FROM c JOIN l IN c.lines WHERE l.count = 2 AND c.total = 14",
            all.clone(),
            vec![json!({"sku": "s2", "total": 14})],
        ),
        (
            "SELECT VALUE c.total FROM c WHERE EXISTS(SELECT VALUE l FROM l IN c.lines WHERE l.sku = 's3') AND c.total < 5",
            all.clone(),
            vec![json!(1)],
        ),
        (
            "SELECT c.kind, COUNT(1) AS n, SUM(c.total) AS sum FROM c GROUP BY c.kind",
            own.clone(),
            vec![
                json!({"kind": "book", "n": 2, "sum": sum(0)}),
                json!({"kind": "pen", "n": 1, "sum": sum(1)}),
            ],
        ),
        (
            "SELECT VALUE MAX(c.id) FROM c",
            own.clone(),
            vec![json!("o-33")],
        ),
    ];
    for (text, scope, expected) in cases {
        let expected: Vec<Value> = expected;
        assert_eq!(
            rows(&orders, &Query::from(text), scope).await,
            expected,
            "{text}"
        );
    }
    // What this SDK does not merge, no plan is made for.
    for (text, feature) in [
        ("SELECT VALUE COUNT(1) FROM c", "Aggregate"),
        ("SELECT c.kind FROM c GROUP BY c.kind", "GroupBy"),
    ] {
        let refused = refusal(&orders, text, all.clone()).await;
        let status = refused.status();
        assert_eq!(u16::from(status.status_code()), 400, "{text}: {refused}");
        assert_eq!(status.sub_status().map(|it| it.value()), Some(1004));
        assert!(refused.to_string().contains(feature), "{text}: {refused}");
    }
    let named = Query::from("SELECT VALUE c.id FROM c WHERE c.total = @total")
        .with_parameter("@total", total(9))
        .unwrap();
    assert_eq!(
        rows(&orders, &named, FeedScope::full_container()).await,
        [json!("o-09")]
    );
    let wrong = refusal(&orders, "SELEC * FROM c", own).await;
    assert!(wrong.to_string().contains("400"), "{wrong}");
    account.shutdown().await;
}

#[tokio::test]
async fn a_query_of_one_partition_costs_the_same_whatever_others_hold() {
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let fill = async |tenant: &'static str, count: usize| {
        for n in 0..count {
            let id = format!("{tenant}-{n}");
            let order = json!({"id": id, "tenant": tenant, "total": n});
            orders.upsert_item(tenant, &id, order, None).await.unwrap();
        }
    };
    let cost = async |text: &str| {
        let mut pages = orders
            .query_items::<Value>(Query::from(text), FeedScope::partition("t1"), None)
            .await
            .unwrap()
            .into_pages();
        let mut charge = 0.0;
        while let Some(page) = pages.next().await {
            charge += page
                .unwrap()
                .headers()
                .request_charge()
                .map_or(0.0, |charge| charge.value());
        }
        charge
    };
    let newest = "SELECT TOP 20 * FROM c WHERE c.tenant = 't1' ORDER BY c.total DESC";
    let one = "SELECT * FROM c WHERE c.id = 't1-7'";
    fill("t1", 30).await;
    let alone = (cost(newest).await, cost(one).await);
    fill("t0", 100).await;
    fill("t2", 100).await;
    assert_eq!((cost(newest).await, cost(one).await), alone);
    assert!(alone.1 < alone.0, "an id names one item: {alone:?}");
    account.shutdown().await;
}

#[tokio::test]
async fn a_container_that_was_made_anew_is_read_again() {
    for from_now in [false, true] {
        let account = start(&REGIONS[..2]).await;
        let orders = orders(&account, &REGIONS[..2]).await;
        put(&orders, "a").await;
        assert_eq!(changes(&orders, None).await.0, ["a"]);
        let other = client(&account, &[]).await;
        other.database_client("shop").delete(None).await.unwrap();
        provision(&account).await;
        if from_now {
            let now = orders
                .query_change_feed::<Value>(
                    FeedScope::full_container(),
                    ChangeFeedStartFrom::Now,
                    None,
                )
                .await;
            let page = now.unwrap().next().await.unwrap().unwrap();
            assert!(page.items().is_empty());
        }
        assert_eq!(changes(&orders, None).await.0, [""; 0]);
        put(&orders, "b").await;
        assert_eq!(changes(&orders, None).await.0, ["b"]);
        account.shutdown().await;
    }
}

#[tokio::test]
async fn a_feed_goes_on_over_splits_and_merges() {
    let account = start_with(&REGIONS[..1], 1).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let put_all = async |from: usize| {
        for n in from..from + 10 {
            let (id, tenant) = (format!("o-{n}"), format!("t{n}"));
            let order = json!({"id": id, "tenant": tenant});
            orders.upsert_item(&tenant, &id, order, None).await.unwrap();
        }
    };
    put_all(0).await;
    let (ids, token) = all_changes(&orders, None, 1).await;
    assert_eq!(ids.len(), 10);
    account.split_partition("shop", "orders", "0").unwrap();
    put_all(10).await;
    let (mut ids, token) = all_changes(&orders, Some(token), 2).await;
    ids.sort();
    let expected: Vec<String> = (10..20).map(|n| format!("o-{n}")).collect();
    assert_eq!(ids, expected, "neither lost nor repeated");
    account.split_partition("shop", "orders", "2").unwrap();
    put_all(20).await;
    let (ids, token) = all_changes(&orders, Some(token), 3).await;
    assert_eq!(ids.len(), 10);
    // And when they come together again.
    let ranges = account.partitions("shop", "orders").unwrap();
    let merged = account.merge_partitions("shop", "orders", [&ranges[0], &ranges[1]]);
    assert_eq!(merged.unwrap(), "5");
    put_all(30).await;
    let (mut ids, token) = all_changes(&orders, Some(token), 3).await;
    ids.sort();
    let expected: Vec<String> = (30..40).map(|n| format!("o-{n}")).collect();
    assert_eq!(ids, expected, "neither lost nor repeated");
    account
        .merge_partitions("shop", "orders", ["5", &ranges[2]])
        .unwrap();
    put_all(40).await;
    assert_eq!(all_changes(&orders, Some(token), 3).await.0.len(), 10);
    account.shutdown().await;
}

#[tokio::test]
async fn a_client_follows_the_write_region() {
    let account = support::builder(2)
        .write_mode(WriteMode::Single)
        .start()
        .await
        .unwrap();
    provision(&account).await;
    let near = orders(&account, &[REGIONS[1], REGIONS[0]]).await;
    let [first, second] = [REGIONS[0], REGIONS[1]].map(|name| [region(name)]);
    assert_eq!(put(&near, "a").await, first);
    settled(&account).await;
    let read = near.read_item("t1", "a", None).await.unwrap();
    assert_eq!(answered(&read.diagnostics()), second);
    account
        .fail_over(REGIONS[1], Failover::Graceful)
        .await
        .unwrap();
    // It is told where writes do not go any more, and learns where they go.
    assert_eq!(put(&near, "b").await, [first, second.clone()].concat());
    assert_eq!(put(&near, "b").await, second);
    // One that comes later starts there.
    let later = newcomer(&account, &REGIONS[..1]).await;
    assert_eq!(put(&orders_of(&later).await, "c").await, second);
    settled(&account).await;
    for region in &REGIONS[..2] {
        assert_eq!(account.item_count(region, "shop", "orders"), Some(3));
    }
    account.shutdown().await;
}

#[tokio::test]
async fn items_are_changed_in_batches_and_read_by_a_part_of_their_key() {
    let account = start(&REGIONS[..1]).await;
    let client = client(&account, &REGIONS[..1]).await;
    let key = PartitionKeyDefinition::from(("/tenant", "/user"));
    let properties = ContainerProperties::new("visits", key);
    let shop = client.database_client("shop");
    shop.create_container(properties, None).await.unwrap();
    let visits = shop.container_client("visits", None).await.unwrap();
    for (id, tenant, user) in [("v1", "t1", "u1"), ("v2", "t1", "u2"), ("v3", "t2", "u1")] {
        let visit = json!({"id": id, "tenant": tenant, "user": user});
        visits
            .create_item((tenant, user), id, &visit, None)
            .await
            .unwrap();
    }
    let query = async |key: PartitionKey| -> Vec<Value> {
        let items = visits
            .query_items::<Value>(
                Query::from("SELECT VALUE c.id FROM c ORDER BY c.id"),
                FeedScope::partition(key),
                None,
            )
            .await
            .unwrap();
        items.map(|item| item.unwrap()).collect().await
    };
    assert_eq!(query(PartitionKey::from("t1")).await, ["v1", "v2"]);
    assert_eq!(query(PartitionKey::from(("t2", "u1"))).await, ["v3"]);

    let orders = orders(&account, &REGIONS[..1]).await;
    put(&orders, "a").await;
    let batch = TransactionalBatch::new("t1")
        .create_item(json!({"id": "b", "tenant": "t1"}))
        .unwrap()
        .delete_item("a", None);
    orders
        .execute_transactional_batch(batch, None)
        .await
        .unwrap();
    assert!(
        read(&orders, "a")
            .await
            .unwrap_err()
            .status()
            .is_not_found()
    );
    let failing = TransactionalBatch::new("t1")
        .delete_item("b", None)
        .delete_item("a", None);
    let failed = orders.execute_transactional_batch(failing, None).await;
    let failed = failed.unwrap();
    assert_eq!(u16::from(failed.status().status_code()), 207);
    let failed = failed.into_model().unwrap();
    let results = failed.results().iter();
    let statuses: Vec<u16> = results.map(|result| result.status_code()).collect();
    assert_eq!(statuses, [424, 404]);
    read(&orders, "b").await.unwrap();
    account.shutdown().await;
}

#[tokio::test]
async fn all_versions_and_deletes_are_read_over_a_split() {
    let account = start_with(&REGIONS[..1], 1).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    put(&orders, "before").await;
    let options = ChangeFeedOptions::default().with_mode(ChangeFeedMode::AllVersionsAndDeletes);
    let mut pages = orders
        .query_change_feed::<Value>(
            FeedScope::full_container(),
            ChangeFeedStartFrom::Now,
            Some(options),
        )
        .await
        .unwrap();
    assert!(pages.next().await.unwrap().unwrap().items().is_empty());
    put(&orders, "a").await;
    account.split_partition("shop", "orders", "0").unwrap();
    put(&orders, "a").await;
    orders.delete_item("t1", "a", None).await.unwrap();
    let (mut seen, mut empty) = (Vec::new(), 0);
    while empty < 2 {
        let page = pages.next().await.unwrap().unwrap();
        empty = if page.items().is_empty() {
            empty + 1
        } else {
            0
        };
        let operations = page
            .items()
            .iter()
            .map(|item| format!("{:?}", item.operation_type()));
        seen.extend(operations);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(
        seen[0].contains("Create") && seen[1].contains("Replace") && seen[2].contains("Delete"),
        "{seen:?}"
    );
    account.shutdown().await;
}

#[tokio::test]
async fn a_query_goes_on_while_the_container_splits() {
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    for n in 0..40 {
        let (id, tenant) = (format!("o-{n:02}"), format!("t{n}"));
        let order = json!({"id": id, "tenant": tenant});
        orders.upsert_item(&tenant, &id, order, None).await.unwrap();
    }
    let options =
        QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(7.try_into().unwrap()));
    let mut items = orders
        .query_items::<Value>(
            Query::from("SELECT * FROM c"),
            FeedScope::full_container(),
            Some(options),
        )
        .await
        .unwrap();
    let mut ids = Vec::new();
    while let Some(item) = items.next().await {
        ids.push(item.unwrap()["id"].as_str().unwrap().to_owned());
        if ids.len() == 10 {
            account.split_partition("shop", "orders", "0").unwrap();
        }
    }
    ids.sort();
    let expected: Vec<String> = (0..40).map(|n| format!("o-{n:02}")).collect();
    assert_eq!(ids, expected);
    account.shutdown().await;
}

#[tokio::test]
async fn a_client_leaves_a_region_that_is_withdrawn() {
    let account = start(&REGIONS[..2]).await;
    let near = orders(&account, &REGIONS[..2]).await;
    put(&near, "a").await;
    settled(&account).await;
    account
        .set_availability(REGIONS[0], Availability::Withdrawn)
        .await
        .unwrap();
    put(&near, "b").await;
    read(&near, "a").await.unwrap();
    let needed = account.set_availability(REGIONS[1], Availability::Withdrawn);
    assert!(matches!(needed.await, Err(ControlError::Needed(_))));
    account
        .set_availability(REGIONS[0], Availability::Online)
        .await
        .unwrap();
    settled(&account).await;
    let back = orders(&account, &REGIONS[..1]).await;
    read(&back, "b").await.unwrap();
    put(&back, "c").await;
    settled(&account).await;
    for region in &REGIONS[..2] {
        assert_eq!(account.item_count(region, "shop", "orders"), Some(3));
    }
    account.shutdown().await;
}

#[tokio::test]
async fn throughput_that_is_used_up_is_waited_for() {
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let units = 50_u32;
    account.limit_throughput(REGIONS[0], Some(units)).unwrap();
    let (start, mut paid, mut last, mut refused) = (Instant::now(), 0.0, 0.0, 0);
    for n in 0..20 {
        let id = n.to_string();
        let order = json!({"id": id, "tenant": "t1"});
        let created = orders.create_item("t1", &id, order, None).await.unwrap();
        paid += last;
        last = created.headers().request_charge().unwrap().value();
        for request in created.diagnostics().requests().iter() {
            if request.status().is_throttled() {
                let substatus = request.status().sub_status();
                assert_eq!(substatus.map(|it| it.value()), Some(3200));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    // A second's worth is there at the start, and all but the last one are paid for.
    let (units, seconds) = (f64::from(units), start.elapsed().as_secs_f64());
    assert!(
        paid <= units + units * seconds,
        "{paid} units in {seconds} s"
    );
    assert_eq!(account.item_count(REGIONS[0], "shop", "orders"), Some(20));
    account.shutdown().await;
}

#[tokio::test]
async fn throughput_that_is_used_up_is_told_to_who_does_not_wait() {
    let account = start(&REGIONS[..1]).await;
    let orders = orders(&account, &REGIONS[..1]).await;
    let put_at_once = async || {
        let never = ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0);
        let mut operation = OperationOptions::default();
        operation.throttling_retry_options = Some(never.build());
        let options = ItemWriteOptions::default().with_operation_options(operation);
        let order = json!({"id": "a", "tenant": "t1"});
        orders.upsert_item("t1", "a", order, Some(options)).await
    };
    account.limit_throughput(REGIONS[0], Some(5)).unwrap();
    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = put_at_once().await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("a hundred writes are more than 5 units a second");
    let status = refused.status();
    assert_eq!(u16::from(status.status_code()), 429, "{refused}");
    assert_eq!(status.sub_status().map(|it| it.value()), Some(3200));
    account.limit_throughput(REGIONS[0], None).unwrap();
    put_at_once().await.unwrap();
    account.shutdown().await;
}
