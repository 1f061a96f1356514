// The change feed: read to its end, and on from there.

import { ChangeFeedStartFrom } from "@azure/cosmos";
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { connect, makeContainer, regions, settled, through } from "./support.mjs";

/** The ids of all changes up to now, and the place after them. */
async function drain(container, start, maxItemCount = 100) {
  const iterator = container.items.getChangeFeedIterator({ changeFeedStartFrom: start, maxItemCount });
  const ids = [];
  let continuation;
  while (iterator.hasMoreResults) {
    const { result, statusCode, continuationToken } = await iterator.readNext();
    continuation = continuationToken;
    if (statusCode === 304) break;
    assert.ok(result.length <= maxItemCount);
    for (const { id, _lsn } of result) {
      assert.equal(typeof _lsn, "number");
      ids.push(id);
    }
  }
  return [ids, continuation];
}

suite("the change feed", () => {
  let orders;
  before(async () => {
    orders = await makeContainer("feed");
  });

  test("gives every item once, at its latest change, and goes on from a continuation", async () => {
    const [none, now] = await drain(orders, ChangeFeedStartFrom.Now());
    assert.deepEqual(none, []);
    for (const id of ["a", "b", "c"]) await orders.items.create({ id, tenant: `t-${id}` });
    await orders.items.upsert({ id: "a", tenant: "t-a", changed: true });
    await orders.item("b", "t-b").delete();
    const [ids, then] = await drain(orders, ChangeFeedStartFrom.Beginning(), 1);
    assert.deepEqual(ids, ["c", "a"]);
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Continuation(now)))[0], ["c", "a"]);
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Continuation(then)))[0], []);
    await orders.items.create({ id: "d", tenant: "t-d" });
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Continuation(then)))[0], ["d"]);
  });

  test("can be read for one partition key", async () => {
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Beginning("t-c")))[0], ["c"]);
  });

  test("starts at a time", async () => {
    const tomorrow = new Date(Date.now() + 86_400_000);
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Time(tomorrow)))[0], []);
    const yesterday = new Date(Date.now() - 86_400_000);
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Time(yesterday)))[0], ["c", "a", "d"]);
  });

  test("of another region has what was written here", async () => {
    const far = through(connect([regions.at(-1)]), orders);
    const [, then] = await drain(far, ChangeFeedStartFrom.Now());
    await orders.items.create({ id: "from-afar", tenant: "t1" });
    await settled();
    assert.deepEqual((await drain(far, ChangeFeedStartFrom.Continuation(then)))[0], ["from-afar"]);
  });
});
