// Several regions that all take writes, and one of them going away.

import { ChangeFeedStartFrom } from "@azure/cosmos";
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { connect, makeContainer, regions, setFailing, setOffline, setOnline, settled, through } from "./support.mjs";

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
    const back = through(connect([first]), orders);
    assert.equal((await back.item("during", "t3").read()).resource.id, "during");
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
