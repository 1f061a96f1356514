// One item at a time, several in one batch, and what is answered when that cannot be.

import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { makeContainer } from "./support.mjs";

const status = (code) => ({ code });

suite("items", () => {
  let orders;
  before(async () => {
    orders = await makeContainer("items");
  });

  test("are created, read, replaced and deleted", async () => {
    const order = { id: "o-1", tenant: "t1", total: 1.5, deep: { list: [1, null, "ü 東京 🚀"] }, big: 2 ** 53 };
    const created = await orders.items.create(order);
    assert.equal(created.statusCode, 201);
    assert.equal(created.resource._etag, created.etag);
    const item = orders.item("o-1", "t1");
    const { resource } = await item.read();
    for (const [name, value] of Object.entries(order)) assert.deepEqual(resource[name], value);

    const replaced = await item.replace({ ...order, total: 2 });
    assert.equal(replaced.statusCode, 200);
    assert.equal(replaced.resource._rid, resource._rid);
    assert.notEqual(replaced.etag, created.etag);
    assert.equal((await item.delete()).statusCode, 204);
    assert.equal((await item.read()).statusCode, 404);
  });

  test("are created or replaced by upsert", async () => {
    assert.equal((await orders.items.upsert({ id: "u", tenant: "t1", n: 1 })).statusCode, 201);
    assert.equal((await orders.items.upsert({ id: "u", tenant: "t1", n: 2 })).statusCode, 200);
    assert.equal((await orders.item("u", "t1").read()).resource.n, 2);
  });

  test("of a partition key are not deleted all at once", async () => {
    await assert.rejects(orders.deleteAllItemsForPartitionKey("t1"), status(501));
  });

  test("have the throughput of their container", async () => {
    const { resource } = await orders.readOffer();
    assert.equal(resource.content.offerThroughput, 400);
  });

  test("get an id when they have none", async () => {
    const { resource } = await orders.items.create({ tenant: "t1" });
    assert.match(resource.id, /^[0-9a-f-]{36}$/);
  });

  test("with the same id and other keys are different items", async () => {
    for (const tenant of ["k", 0, false, "", null, 1.5]) await orders.items.create({ id: "same", tenant, was: String(tenant) });
    for (const tenant of ["k", 0, false, "", null, 1.5]) {
      assert.equal((await orders.item("same", tenant).read()).resource.was, String(tenant));
    }
    await orders.items.create({ id: "same", was: "missing" });
    assert.equal((await orders.item("same", undefined).read()).resource.was, "missing");
  });

  test("have ids of any characters that the service allows", async () => {
    for (const id of ["a b", "a+b", "a@b=c&d", "ünï", "%25", "a'b\"c", "東京"]) {
      await orders.items.create({ id, tenant: "ids" });
      assert.equal((await orders.item(id, "ids").read()).resource.id, id);
      assert.equal((await orders.item(id, "ids").delete()).statusCode, 204);
    }
  });

  test("are refused with 409, 404, 412 and 400", async () => {
    const { etag } = await orders.items.create({ id: "once", tenant: "t1" });
    await assert.rejects(orders.items.create({ id: "once", tenant: "t1" }), status(409));
    await assert.rejects(orders.item("never", "t1").replace({ id: "never", tenant: "t1" }), status(404));
    await assert.rejects(orders.item("never", "t1").delete(), status(404));

    const item = orders.item("once", "t1");
    const accessCondition = { type: "IfMatch", condition: etag };
    await item.replace({ id: "once", tenant: "t1", n: 1 }, { accessCondition });
    await assert.rejects(item.replace({ id: "once", tenant: "t1", n: 2 }, { accessCondition }), status(412));
    await assert.rejects(item.delete({ accessCondition }), status(412));
    assert.equal((await item.read()).resource.n, 1);
    await assert.rejects(item.replace({ id: "other", tenant: "t1" }), status(400));
    await assert.rejects(orders.items.create({ id: "a/b", tenant: "t1" }));
  });

  test("are not sent again to who has them", async () => {
    const { etag } = await orders.items.create({ id: "cached", tenant: "t1" });
    const accessCondition = { type: "IfNoneMatch", condition: etag };
    const { statusCode } = await orders.item("cached", "t1").read({ accessCondition });
    assert.equal(statusCode, 304);
  });

  test("are listed in pages", async () => {
    const iterator = orders.items.readAll({ maxItemCount: 3 });
    const ids = new Set();
    let count = 0;
    while (iterator.hasMoreResults()) {
      const { resources } = await iterator.fetchNext();
      assert.ok(resources.length <= 3);
      for (const { _rid } of resources) ids.add(_rid);
      count += resources.length;
    }
    assert.equal(ids.size, count);
    assert.ok(count > 5);
  });
});

suite("several operations at once", () => {
  let orders;
  before(async () => {
    orders = await makeContainer("several");
  });

  test("patch changes parts of an item, all of them or none", async () => {
    await orders.items.create({ id: "p", tenant: "t1", n: 1, tags: ["a"], draft: true, old: "x" });
    const item = orders.item("p", "t1");
    const { statusCode, resource } = await item.patch([
      { op: "add", path: "/tags/-", value: "b" },
      { op: "set", path: "/state", value: { open: false } },
      { op: "replace", path: "/tags/0", value: "A" },
      { op: "incr", path: "/n", value: 2.5 },
      { op: "remove", path: "/draft" },
    ]);
    assert.equal(statusCode, 200);
    const { n, tags, state, draft } = resource;
    assert.deepEqual({ n, tags, state, draft }, { n: 3.5, tags: ["A", "b"], state: { open: false }, draft: undefined });
    await assert.rejects(item.patch([{ op: "set", path: "/n", value: 0 }, { op: "remove", path: "/never" }]), status(400));
    assert.equal((await item.read()).resource.n, 3.5);
    const when = (condition) => ({ condition, operations: [{ op: "incr", path: "/n", value: 1 }] });
    await assert.rejects(item.patch(when("from c where c.n > 100")), status(412));
    assert.equal((await item.patch(when("from c where c.n < 100"))).resource.n, 4.5);
    await assert.rejects(orders.item("never", "t1").patch([{ op: "set", path: "/n", value: 0 }]), status(404));
  });

  test("a batch is carried out whole, or not at all", async () => {
    const done = await orders.items.batch(
      [
        { operationType: "Create", resourceBody: { id: "b-1", tenant: "t1", n: 1 } },
        { operationType: "Upsert", resourceBody: { id: "b-2", tenant: "t1" } },
        { operationType: "Patch", id: "b-1", resourceBody: { operations: [{ op: "incr", path: "/n", value: 1 }] } },
        { operationType: "Read", id: "b-1" },
        { operationType: "Delete", id: "b-2" },
      ],
      "t1",
    );
    assert.deepEqual(done.result.map(({ statusCode }) => statusCode), [201, 201, 200, 200, 204]);
    assert.equal(done.result[3].resourceBody.n, 2);
    const failed = await orders.items.batch(
      [
        { operationType: "Replace", id: "b-1", resourceBody: { id: "b-1", tenant: "t1", n: 9 } },
        { operationType: "Create", resourceBody: { id: "b-1", tenant: "t1" } },
        { operationType: "Create", resourceBody: { id: "b-3", tenant: "t1" } },
      ],
      "t1",
    );
    assert.equal(failed.code, 207);
    assert.deepEqual(failed.result.map(({ statusCode }) => statusCode), [424, 409, 424]);
    assert.equal((await orders.item("b-1", "t1").read()).resource.n, 2);
    assert.equal((await orders.item("b-3", "t1").read()).statusCode, 404);
  });

  test("in bulk, each operation stands alone, whatever its partition", async () => {
    const creates = Array.from({ length: 50 }, (_, n) => ({
      operationType: "Create",
      partitionKey: `k${n}`,
      resourceBody: { id: `bulk-${n % 49}`, tenant: `k${n}` },
    }));
    const again = { ...creates[7] };
    const results = await orders.items.executeBulkOperations([...creates, again]);
    const codes = results.map(({ response, error }) => response?.statusCode ?? error?.code);
    assert.deepEqual(codes.slice(0, 50), Array(50).fill(201));
    assert.equal(codes[50], 409);
  });
});

suite("databases and containers", () => {
  test("are created, read, listed and deleted", async () => {
    const container = await makeContainer("short-lived");
    const { database } = container;
    const { resource } = await container.read();
    assert.deepEqual(resource.partitionKey.paths, ["/tenant"]);
    const { resources } = await database.containers.readAll().fetchAll();
    assert.ok(resources.some(({ id }) => id === "short-lived"));
    await assert.rejects(database.containers.create({ id: "short-lived", partitionKey: "/tenant" }), status(409));
    await container.delete();
    await assert.rejects(container.read(), status(404));
  });

  test("are found by query", async () => {
    const { database } = await makeContainer("found");
    const named = (id) => ({ query: "SELECT * FROM root r WHERE r.id = @id", parameters: [{ name: "@id", value: id }] });
    const containers = await database.containers.query(named("found")).fetchAll();
    assert.deepEqual(containers.resources.map(({ id }) => id), ["found"]);
    const databases = await database.client.databases.query(named("javascript")).fetchAll();
    assert.deepEqual(databases.resources.map(({ id }) => id), ["javascript"]);
    const none = await database.client.databases.query(named("nowhere")).fetchAll();
    assert.deepEqual(none.resources, []);
  });
});
