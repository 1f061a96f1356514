// A region whose throughput is used up.

import assert from "node:assert/strict";
import { before, suite, test } from "node:test";
import { attempts, connect, limit, makeContainer, regions, through, unlimit } from "./support.mjs";

suite("throughput", () => {
  const [first] = regions;
  let orders;
  before(async () => {
    orders = await makeContainer("throughput");
  });

  test("that is used up is waited for, and everything is written", async () => {
    const own = through(connect([first]), orders);
    const units = 50;
    await limit(first, units);
    const start = performance.now();
    let [paid, last, waited] = [0, 0, 0];
    const tries = [];
    try {
      for (let n = 0; n < 20; n += 1) {
        const [created, made] = await attempts(() => own.items.create({ id: `${n}`, tenant: "t1" }));
        assert.equal(created.statusCode, 201);
        paid += last;
        last = created.requestCharge;
        waited += created.headers["x-ms-throttle-retry-wait-time-ms"];
        tries.push(...made);
      }
    } finally {
      await unlimit(first);
    }
    const refused = tries.filter(([, status]) => status !== 201);
    assert.ok(refused.length > 0);
    for (const [region, ...codes] of refused) assert.deepEqual([region, codes], [first, [429, 3200]]);
    const seconds = (performance.now() - start) / 1000;
    assert.ok(waited > 0 && waited / 1000 <= seconds, `${waited} ms in ${seconds} s`);
    // A second's worth is there at the start, and all but the last one are paid for.
    assert.ok(paid <= units + units * seconds, `${paid} units in ${seconds} s`);
    const { resources } = await own.items.query("SELECT VALUE c.id FROM c", { partitionKey: "t1" }).fetchAll();
    assert.equal(resources.length, 20);
  });

  test("that is used up is told to who does not wait", async () => {
    const connectionPolicy = { retryOptions: { maxRetryAttemptCount: 0 } };
    const own = through(connect([first], { connectionPolicy }), orders);
    await limit(first, 5);
    try {
      const spend = async () => {
        for (let n = 0; n < 100; n += 1) await own.items.upsert({ id: "spent", tenant: "t2" });
      };
      await assert.rejects(spend(), ({ code, substatus, retryAfterInMs }) => {
        assert.deepEqual([code, substatus], [429, 3200]);
        assert.ok(retryAfterInMs > 0, retryAfterInMs);
        return true;
      });
    } finally {
      await unlimit(first);
    }
    assert.equal((await own.items.upsert({ id: "spent", tenant: "t2" })).statusCode, 200);
  });
});
