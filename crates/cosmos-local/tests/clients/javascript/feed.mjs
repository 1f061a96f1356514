// The change feed: read to its end, and on from there.

import { ChangeFeedMode, ChangeFeedStartFrom } from "@azure/cosmos";
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { connect, makeContainer, regions, settled, split, through } from "./support.mjs";

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
    assert.deepEqual(ids.sort(), ["a", "c"]);
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Continuation(now)))[0].sort(), ["a", "c"]);
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
    assert.deepEqual((await drain(orders, ChangeFeedStartFrom.Time(yesterday)))[0].sort(), ["a", "c", "d"]);
  });

  test("is in order for each partition key", async () => {
    const ordered = await makeContainer("ordered");
    for (let n = 0; n < 10; n += 1) await ordered.items.create({ id: `${n}`, tenant: "one" });
    await ordered.items.upsert({ id: "3", tenant: "one" });
    assert.deepEqual((await drain(ordered, ChangeFeedStartFrom.Beginning(), 4))[0].join(""), "0124567893");
  });

  test("goes on over a split", async () => {
    const growing = await makeContainer("growing");
    const put = async (from) => {
      for (let n = from; n < from + 12; n += 1) await growing.items.create({ id: `${n}`, tenant: `t${n}` });
    };
    await put(0);
    const [first, then] = await drain(growing, ChangeFeedStartFrom.Beginning());
    assert.equal(first.length, 12);
    await split(growing);
    await put(12);
    const [second] = await drain(growing, ChangeFeedStartFrom.Continuation(then));
    assert.deepEqual(second.map(Number).sort((a, b) => a - b), Array.from({ length: 12 }, (_, n) => n + 12));
  });

  test("of all versions and deletes has each of them, and goes on from a continuation", async () => {
    const kept = await makeContainer("versions");
    const drain = async (changeFeedStartFrom) => {
      const options = { changeFeedStartFrom, changeFeedMode: ChangeFeedMode.AllVersionsAndDeletes };
      const iterator = kept.items.getChangeFeedIterator(options);
      const rows = [];
      for (;;) {
        const { result, statusCode, continuationToken } = await iterator.readNext();
        if (statusCode === 304) return [rows, continuationToken];
        for (const { current, metadata } of result) rows.push([metadata.operationType, current?.n]);
      }
    };
    await kept.items.create({ id: "before", tenant: "t1" });
    const [none, now] = await drain(ChangeFeedStartFrom.Now());
    assert.deepEqual(none, []);
    await kept.items.create({ id: "a", tenant: "t1", n: 1 });
    await kept.items.upsert({ id: "a", tenant: "t1", n: 2 });
    const [first, then] = await drain(ChangeFeedStartFrom.Continuation(now));
    assert.deepEqual(first, [["create", 1], ["replace", 2]]);
    await kept.item("a", "t1").delete();
    assert.deepEqual((await drain(ChangeFeedStartFrom.Continuation(then)))[0], [["delete", undefined]]);
    assert.equal((await drain(ChangeFeedStartFrom.Continuation(now)))[0].length, 3);
  });

  test("of another region has what was written here", async () => {
    const far = through(connect([regions.at(-1)]), orders);
    const [, then] = await drain(far, ChangeFeedStartFrom.Now());
    await orders.items.create({ id: "from-afar", tenant: "t1" });
    await settled();
    assert.deepEqual((await drain(far, ChangeFeedStartFrom.Continuation(then)))[0], ["from-afar"]);
  });
});
