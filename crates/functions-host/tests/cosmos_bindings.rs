//! Cosmos DB input and output bindings against a local account.
#![allow(clippy::unwrap_used)]

mod cosmos_common;

use cosmos_common::{DATABASE, World};
use functions_host::binding::{
    BindingError, CosmosItemInput, CosmosOutput, CosmosQueryInput, Encoded,
};
use functions_host::binding_data::{BindingData, DataValue};
use functions_host::cosmos::{CosmosClients, input, output};
use functions_host::expression::{SqlTemplate, Template};
use serde_json::{Map, Value, json};

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn data(values: &[(&str, &str)]) -> BindingData {
    let mut data = BindingData::new("F");
    for (name, value) in values {
        data.set(name, DataValue::Text((*value).to_owned()));
    }
    data
}

fn item(container: &str) -> CosmosItemInput {
    CosmosItemInput {
        name: "item".into(),
        connection: "Db".into(),
        database: template(DATABASE),
        container: template(container),
        id: template("{id}"),
        partition_key: Some(template("{device}")),
        preferred_locations: vec!["West US".into()],
    }
}

fn query(sql: Option<&str>, partition_key: Option<&str>) -> CosmosQueryInput {
    CosmosQueryInput {
        name: "rows".into(),
        connection: "Db".into(),
        database: template(DATABASE),
        container: template("materialized"),
        sql_query: sql.map(|sql| SqlTemplate::parse(sql).unwrap()),
        partition_key: partition_key.map(template),
        preferred_locations: vec!["West US".into()],
    }
}

fn out(container: &str) -> CosmosOutput {
    CosmosOutput {
        name: "out".into(),
        connection: "Db".into(),
        database: template(DATABASE),
        container: template(container),
        create_if_not_exists: false,
        partition_key_path: None,
        container_throughput: None,
        preferred_locations: vec!["West US".into()],
    }
}

fn maps(items: Value) -> Vec<Map<String, Value>> {
    serde_json::from_value(items).unwrap()
}

async fn rows(clients: &CosmosClients, input: CosmosQueryInput, data: &BindingData) -> Vec<Value> {
    match Box::pin(input::query(clients, &input, data)).await.unwrap() {
        Encoded::Json(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_output_wrote_an_input_reads() {
    let world = World::new().await;
    world.create_container("materialized", "/deviceId").await;
    let clients = world.clients();
    let none = data(&[]);
    let documents = maps(json!([
        {"id": "1", "deviceId": "dev-7", "maxValue": 41},
        {"id": "2", "deviceId": "dev-8", "maxValue": 42.125, "nested": {"a": [1, null]}},
        {"id": "1", "deviceId": "dev-7", "maxValue": 43},
    ]));
    Box::pin(output::write(
        &clients,
        &out("materialized"),
        &none,
        &documents,
    ))
    .await
    .unwrap();

    let key = data(&[("id", "2"), ("device", "dev-8")]);
    let read = Box::pin(input::read_item(&clients, &item("materialized"), &key))
        .await
        .unwrap();
    let Encoded::Text(text) = read else {
        panic!("{read:?}")
    };
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["maxValue"], 42.125);
    assert_eq!(read["nested"], json!({"a": [1, null]}));
    assert!(read.get("_etag").is_some());
    assert!(!text.contains('\n'), "compact: {text}");

    // Items of one output are applied in order: the last one wins.
    let all = rows(&clients, query(None, None), &none).await;
    assert_eq!(all.len(), 2);
    let first = all.iter().find(|row| row["id"] == "1").unwrap();
    assert_eq!(first["maxValue"], 43);
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_reads_as_nothing() {
    let world = World::new().await;
    world.create_container("materialized", "/deviceId").await;
    let clients = world.clients();
    for (container, values) in [
        ("materialized", [("id", "1"), ("device", "dev-7")]),
        ("nowhere", [("id", "1"), ("device", "dev-7")]),
    ] {
        let read = Box::pin(input::read_item(&clients, &item(container), &data(&values))).await;
        assert!(matches!(read, Ok(Encoded::Null)), "{container}: {read:?}");
    }
    assert_eq!(
        rows(&clients, query(None, None), &data(&[])).await,
        Vec::<Value>::new()
    );

    let empty = data(&[("id", ""), ("device", "d")]);
    let error = Box::pin(input::read_item(&clients, &item("materialized"), &empty))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("id of the item to read is empty"),
        "{error}"
    );
    let error = Box::pin(input::read_item(
        &clients,
        &item("materialized"),
        &data(&[]),
    ))
    .await
    .unwrap_err();
    assert!(matches!(error, BindingError::Expression(_)), "{error}");

    // A query, unlike a point read, fails on a missing container.
    let mut missing = query(None, None);
    missing.container = template("nowhere");
    let error = Box::pin(input::query(&clients, &missing, &data(&[])))
        .await
        .unwrap_err();
    assert!(matches!(&error, BindingError::Service { .. }), "{error}");
    assert!(error.to_string().contains("db/nowhere"), "{error}");
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_values_are_parameters_and_never_text() {
    let world = World::new().await;
    world.create_container("materialized", "/deviceId").await;
    let clients = world.clients();
    let documents = maps(json!([
        {"id": "1", "deviceId": "dev-7", "n": 1},
        {"id": "2", "deviceId": "dev-7", "n": 2},
        {"id": "3", "deviceId": "x' OR 1=1 --", "n": 3},
        {"id": "4", "deviceId": "7", "n": 4},
    ]));
    Box::pin(output::write(
        &clients,
        &out("materialized"),
        &data(&[]),
        &documents,
    ))
    .await
    .unwrap();

    let by_device = "SELECT TOP 20 * FROM c WHERE c.deviceId = {deviceId} ORDER BY c.n DESC";
    for (device, expected) in [
        ("dev-7", &["2", "1"][..]),
        ("x' OR 1=1 --", &["3"][..]),
        ("7", &["4"][..]),
        ("nobody", &[][..]),
    ] {
        let data = data(&[("deviceId", device)]);
        for partition_key in [None, Some("{deviceId}")] {
            let found = rows(&clients, query(Some(by_device), partition_key), &data).await;
            assert_eq!(
                ids(&found),
                expected,
                "{device}, partition key {partition_key:?}"
            );
        }
    }
    let found = rows(&clients, query(None, Some("dev-7")), &data(&[])).await;
    assert_eq!(found.len(), 2);
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_reads_all_pages() {
    let world = World::new().await;
    world.create_container("materialized", "/deviceId").await;
    let clients = world.clients();
    let documents: Vec<Value> = (0..250)
        .map(|i| json!({"id": format!("{i:03}"), "deviceId": format!("dev-{}", i % 7), "pad": "x".repeat(500)}))
        .collect();
    Box::pin(output::write(
        &clients,
        &out("materialized"),
        &data(&[]),
        &maps(json!(documents)),
    ))
    .await
    .unwrap();
    let found = rows(&clients, query(None, None), &data(&[])).await;
    assert_eq!(found.len(), 250);
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_cannot_be_written_fail_by_name() {
    let world = World::new().await;
    world.create_container("materialized", "/deviceId").await;
    let clients = world.clients();
    for (documents, expected) in [
        (
            json!([{"deviceId": "d"}]),
            "document 0: \"id\" must be a non-empty string",
        ),
        (json!([{"id": 5, "deviceId": "d"}]), "document 0: \"id\""),
        (
            json!([{"id": "a", "deviceId": "d"}, {"id": "", "deviceId": "d"}]),
            "document 1: \"id\"",
        ),
        (
            json!([{"id": "b", "deviceId": {}}]),
            "document 0: the partition key /deviceId must be",
        ),
    ] {
        let result = Box::pin(output::write(
            &clients,
            &out("materialized"),
            &data(&[]),
            &maps(documents),
        ))
        .await;
        let error = result.unwrap_err();
        assert!(matches!(error, BindingError::InvalidOutput(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // No transaction: what came before the failure is there.
    assert_eq!(ids(&world.all("materialized").await), ["a"]);
    world.account.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_is_created_only_when_asked_for() {
    let world = World::new().await;
    let clients = world.clients();
    let documents = maps(json!([{"id": "a", "deviceId": "d"}, {"id": "b", "deviceId": "d"}]));
    let mut binding = out("fresh");
    let error = Box::pin(output::write(&clients, &binding, &data(&[]), &documents))
        .await
        .unwrap_err();
    assert!(matches!(error, BindingError::Service { .. }), "{error:?}");

    binding.create_if_not_exists = true;
    let error = Box::pin(output::write(&clients, &binding, &data(&[]), &documents))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("partitionKey"), "{error}");

    binding.partition_key_path = Some(template("/deviceId"));
    Box::pin(output::write(&clients, &binding, &data(&[]), &documents))
        .await
        .unwrap();
    assert_eq!(world.all("fresh").await.len(), 2);
    world.account.shutdown().await;
}
