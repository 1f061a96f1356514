// Several regions that all take writes, and one of them going away.

import { ChangeFeedStartFrom } from "@azure/cosmos";
import assert from "node:assert/strict";
import { before, mock, suite, test } from "node:test";
import {
  attempts,
  connect,
  cut,
  makeContainer,
  open,
  regions,
  setFailing,
  setOffline,
  setOnline,
  setWithdrawn,
  setWriteRegion,
  settled,
  singleWriteEndpoint,
  through,
} from "./support.mjs";

suite("regions", () => {
  const [first, second] = regions;
  let orders;
  before(async () => {
    orders = await makeContainer("regions");
  });

  test("all take writes, and all have them", async () => {
    const endpoints = new Set();
    for (const region of regions) {
      const own = through(connect([region]), orders);
      const { diagnostics } = await own.items.create({ id: region, tenant: "t1" });
      endpoints.add(diagnostics.clientSideRequestStatistics.locationEndpointsContacted.at(-1));
    }
    assert.equal(endpoints.size, regions.length);
    await settled();
    for (const region of regions) {
      const own = through(connect([region]), orders);
      const { resources } = await own.items.query("SELECT VALUE c.id FROM c", { partitionKey: "t1" }).fetchAll();
      assert.deepEqual(resources.sort(), [...regions].sort());
    }
  });

  test("read what the same client has written, wherever it reads", async () => {
    const near = through(connect([first]), orders);
    for (let n = 0; n < 20; n += 1) {
      const id = `session-${n}`;
      const { headers } = await near.items.create({ id, tenant: "t1" });
      const sessionToken = headers["x-ms-session-token"];
      const far = through(connect([second]), orders);
      const { resource } = await far.item(id, "t1").read({ sessionToken });
      assert.equal(resource?.id, id);
    }
  });

  test("stand in for one that answers 503", async () => {
    const own = through(connect(regions), orders);
    await own.items.create({ id: "before", tenant: "t3" });
    await settled();
    await setFailing(first);
    try {
      assert.equal((await own.item("before", "t3").read()).resource.id, "before");
      assert.equal((await own.items.create({ id: "during", tenant: "t3" })).statusCode, 201);
      const query = own.items.query("SELECT VALUE c.id FROM c WHERE c.tenant = 't3' ORDER BY c.id");
      assert.deepEqual((await query.fetchAll()).resources, ["before", "during"]);
    } finally {
      await setOnline(first);
    }
    await settled();
    const [{ resource }, tries] = await attempts(() => own.item("during", "t3").read());
    assert.equal(resource.id, "during");
    assert.deepEqual(tries, [[first, 200]], "the same client is back at once");
  });

  test("stand in for one that is withdrawn, and the same client comes back to it", async () => {
    // The client's own timer, which has it ask for the account's regions every five minutes, goes as this test wants.
    mock.timers.enable({ apis: ["setInterval"] });
    try {
      const connectionPolicy = { enableBackgroundEndpointRefreshing: true };
      const own = through(connect([first, second], { connectionPolicy }), orders);
      const put = (id) => attempts(() => own.items.create({ id, tenant: "t5" }));
      assert.deepEqual((await put("before"))[1], [[first, 201]]);
      await setWithdrawn(first);
      try {
        assert.deepEqual((await put("during"))[1], [[first, 403, 1008], [second, 201]]);
        const [{ resource }, tries] = await attempts(() => own.item("during", "t5").read());
        assert.equal(resource.id, "during");
        assert.deepEqual(tries, [[second, 200]], "it has learnt");
      } finally {
        await setOnline(first);
      }
      await settled();
      mock.timers.tick(5 * 60 * 1000);
      const deadline = performance.now() + 30_000;
      let tries;
      do {
        assert.ok(performance.now() < deadline, "it comes back");
        [, tries] = await attempts(() => own.item("during", "t5").read());
      } while (tries[0][0] !== first);
      assert.deepEqual(tries, [[first, 200]]);
      assert.deepEqual((await put("after"))[1], [[first, 201]]);
    } finally {
      mock.timers.reset();
    }
  });

  test("are asked only for what they have, by the session that the client keeps", async () => {
    const client = connect([second, first], { consistencyLevel: "Session" });
    const own = through(client, orders);
    const put = (n) => attempts(() => own.items.upsert({ id: "kept", tenant: "t6", n }, { excludedLocations: [second] }));
    const read = () => attempts(() => own.item("kept", "t6").read());
    assert.deepEqual((await put(1))[1], [[first, 201]]);
    await settled();
    assert.deepEqual((await read())[1], [[second, 200]]);
    await cut(first);
    try {
      assert.deepEqual((await put(2))[1], [[first, 200]]);
      // This SDK asks the same region as often as the account has regions, and then gives up what it knows of the
      // session (`sessionRetryPolicy.js` of `@azure/cosmos` 4.10.1).
      const [{ resource }, tries] = await read();
      assert.deepEqual(tries, [...regions.map(() => [second, 404, 1002]), [second, 200]]);
      assert.equal(resource.n, 1);
      assert.deepEqual((await put(3))[1], [[first, 200]]);
    } finally {
      await open(first);
    }
    await settled();
    const [{ resource }, tries] = await read();
    assert.deepEqual(tries, [[second, 200]]);
    assert.equal(resource.n, 3);
  });

  test("of which only one takes writes are written to there, wherever that is", async () => {
    const client = connect([second, first], { endpoint: singleWriteEndpoint });
    const moving = await makeContainer("moving", client);
    const put = (id) => attempts(() => moving.items.create({ id, tenant: "t1" }));
    assert.deepEqual((await put("before"))[1], [[first, 201]]);
    await settled();
    assert.deepEqual((await attempts(() => moving.item("before", "t1").read()))[1], [[second, 200]]);
    for (const [id, old, now] of [["after", first, second], ["back", second, first]]) {
      await setWriteRegion(now);
      assert.deepEqual((await put(id))[1], [[old, 403, 3], [now, 201]]);
      assert.deepEqual((await put(`${id} that`))[1], [[now, 201]], "it has learnt");
    }
    const { resources } = await moving.items.query("SELECT VALUE c.id FROM c", { partitionKey: "t1" }).fetchAll();
    assert.deepEqual(resources.sort(), ["after", "after that", "back", "back that", "before"]);
  });

  test("keep what has lost, where conflicts are left to their users", async () => {
    const custom = await makeContainer("conflicts", connect(), { conflictResolutionPolicy: { mode: "Custom" } });
    const both = [first, second].map((region) => through(connect([region]), custom));
    await both[0].items.create({ id: "old", tenant: "t1" });
    await settled();
    for (const region of [first, second]) await cut(region);
    try {
      for (const [n, own] of both.entries()) {
        await own.items.create({ id: "new", tenant: "t1", n });
        await own.item("old", "t1").delete();
      }
    } finally {
      for (const region of [first, second]) await open(region);
    }
    await settled();
    const { resource: winner } = await both[0].item("new", "t1").read();
    const list = async (own) => {
      const { resources } = await own.conflicts.readAll().fetchAll();
      return resources.sort((a, b) => a.operationType.localeCompare(b.operationType));
    };
    for (const own of both) {
      const conflicts = await list(own);
      assert.deepEqual(conflicts.map(({ operationType }) => operationType), ["create", "delete"]);
      const loser = JSON.parse(conflicts[0].content);
      assert.deepEqual([loser.id, loser.n, loser._rid], ["new", 1 - winner.n, conflicts[0].resourceId]);
      // One alone is asked for at a path that is none (`Conflict.js` of `@azure/cosmos` 4.10.1).
      await assert.rejects(own.conflict(conflicts[0].id, "t1").read(), { code: 404 });
    }
    const [{ id }] = await list(both[1]);
    await both[1].conflict(id, "t1").delete();
    await settled();
    for (const own of both) {
      assert.deepEqual((await list(own)).map(({ operationType }) => operationType), ["delete"]);
      assert.equal((await own.item("new", "t1").read()).resource.n, winner.n);
    }
  });

  // Between regions, this SDK moves on answers and on names that do not resolve, not on a refused connection
  // (`retryUtility.js` of `@azure/cosmos`): its applications do that themselves, with a client for the other regions.
  test("stand in for one that is offline, and nothing is lost when it is back", async () => {
    const own = through(connect([first]), orders);
    const other = through(connect([second, first]), orders);
    await own.items.create({ id: "before", tenant: "t2" });
    await settled();
    const feed = own.items.getChangeFeedIterator({ changeFeedStartFrom: ChangeFeedStartFrom.Now() });
    const { continuationToken } = await feed.readNext();

    await setOffline(first);
    try {
      await assert.rejects(own.item("before", "t2").read(), { code: "ECONNREFUSED" });
      assert.equal((await other.item("before", "t2").read()).resource.id, "before");
      assert.equal((await other.items.create({ id: "during", tenant: "t2" })).statusCode, 201);
      const query = other.items.query("SELECT VALUE c.id FROM c WHERE c.tenant = 't2' ORDER BY c.id");
      assert.deepEqual((await query.fetchAll()).resources, ["before", "during"]);
      // A continuation of the region that is gone is good in any other.
      assert.deepEqual(await changes(other, continuationToken), ["during"]);
    } finally {
      await setOnline(first);
    }
    await settled();
    assert.equal((await own.item("during", "t2").read()).resource.id, "during");
    assert.deepEqual(await changes(own, continuationToken), ["during"]);
  });
});

/** The ids of what has changed after a continuation. */
async function changes(container, continuation) {
  const iterator = container.items.getChangeFeedIterator({ changeFeedStartFrom: ChangeFeedStartFrom.Continuation(continuation) });
  const ids = [];
  while (iterator.hasMoreResults) {
    const { result, statusCode } = await iterator.readNext();
    if (statusCode === 304) break;
    ids.push(...result.map(({ id }) => id));
  }
  return ids;
}
