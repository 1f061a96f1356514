/**
 * The promise of the system, held against real pages: an event accepted in one region appears in the page of every other
 * region exactly once, whatever is cut, taken offline or stopped in between.
 *
 * Three pages look on, each connected to a region of its own. The tests run in order on one system; the last one
 * compares everything that was ever accepted with everything that the pages and the regions have.
 */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { startBrowser } from "./support/browser.mjs";
import { startCloud } from "./support/cloud.mjs";
import { Dashboard, PATIENCE_MS } from "./support/dashboard.mjs";

/** Writes that are timed. */
const TIMED = 30;

/** Events of the simulated devices during each disturbance. */
const SIMULATED = 60;

const NO_WEB_SOCKET = "the page is not connected by WebSocket";

describe("the dashboard", { timeout: 600_000 }, () => {
  let cloud;
  let browser;
  /** Pages by the region they watch. */
  const pages = [];
  /** Names of the three regions. */
  let one, two, three;
  const functions = (name) => cloud.regions.find((region) => region.name === name).functions;

  before(async () => {
    cloud = await startCloud();
    [one, two, three] = cloud.regions.map(({ name }) => name);
    browser = await startBrowser();
    for (const region of [one, two, three]) {
      pages.push(await Dashboard.open(browser.context, cloud.dashboard, region));
    }
  });

  afterEach(async (test) => {
    if (test.passed !== false) return;
    const folder = await mkdtemp(join(tmpdir(), "geo-events-failed-"));
    for (const [i, { page }] of pages.entries())
      await page.screenshot({ path: join(folder, `${i}.png`), fullPage: true });
    process.stderr.write(`screenshots: ${folder}\nthe last lines of the system:\n${cloud.log.join("\n")}\n`);
  });

  after(async () => {
    try {
      await browser?.stop();
    } finally {
      await cloud?.stop();
    }
  });

  /** Breaks the connection of a page; only a system of another kind may have none that can be broken. */
  const dropped = async (page) => {
    const isDropped = await page.drop();
    assert.ok(isDropped || !cloud.isOurs, NO_WEB_SOCKET);
    return isDropped;
  };
  const everyPageShowsOnce = (ids) => Promise.all(pages.map((page) => page.showsOnce(ids)));

  it("shows an event that the form wrote to another region in the pages of all regions", async (t) => {
    const [first, , third] = pages;
    const id = await first.write(two, { deviceId: "thermometer-1", value: 21.5 });
    const { text, at } = await third.row(id);
    assert.match(text, new RegExp(`thermometer-1 in ${two} reports 21\\.5`));
    await everyPageShowsOnce([id]);
    const accepted = (await first.acceptances()).get(id);
    t.diagnostic(
      `form in ${one}, written to ${two}: from the 201 to the text in the page of ${three} ${(at - accepted).toFixed(0)} ms`,
    );
  });

  it("shows what any web page writes, soon", async (t) => {
    const [first, , third] = pages;
    const ids = [];
    for (let i = 0; i < TIMED; i += 1) {
      const id = await first.writeByFetch(functions(one), { deviceId: "anemometer-1", value: i });
      await third.row(id);
      ids.push(id);
    }
    await everyPageShowsOnce(ids);
    const acceptances = await first.acceptances();
    const rows = await third.rows();
    const times = ids.map((id) => rows.get(id).at - acceptances.get(id)).sort((a, b) => a - b);
    const at = (share) => times[Math.min(times.length - 1, Math.floor(share * times.length))].toFixed(0);
    t.diagnostic(
      `${TIMED} writes in ${one}: from the 201 to the text in the page of ${three} ` +
        `${at(0)} ms at least, ${at(0.5)} ms median, ${at(0.9)} ms in 9 of 10, ${at(1)} ms at most`,
    );
  });

  it("shows an event that was sent twice once", async () => {
    const [first] = pages;
    const event = { id: `sent-twice-${Date.now()}`, deviceId: "barometer-1", value: 1013 };
    assert.equal(await first.writeByFetch(functions(one), event), event.id);
    await everyPageShowsOnce([event.id]);
    assert.equal(await first.writeByFetch(functions(one), event), event.id);
    const later = await first.writeByFetch(functions(one), { deviceId: "barometer-1", value: 1014 });
    await everyPageShowsOnce([event.id, later]);
  });

  it("says beside the field what is wrong with it", async () => {
    assert.match(await pages[0].writeInvalid(one, "warm"), /number/);
  });

  it("reads in one region what is materialized of a device that reported in another", async () => {
    const [first] = pages;
    const deviceId = `hygrometer-${Date.now()}`;
    const id = await first.write(two, { deviceId, value: 47.25 });
    assert.match(await first.readUntil(three, deviceId, id), new RegExp(`${two}.*47\\.25`, "s"));
  });

  it("loses nothing when one direction between two regions is cut", async () => {
    const [first, second] = pages;
    await first.setLink(one, two, "cut");
    const held = await first.write(one, { deviceId: "thermometer-2", value: 1 });
    await first.showsOnce([held]);
    await first.hasPending(one, two);
    const free = await first.write(two, { deviceId: "thermometer-2", value: 2 });
    await first.showsOnce([free]);
    await second.showsOnce([free]);
    assert.equal((await second.rows()).has(held), false, "nothing passes a cut link");
    await first.setLink(one, two, "open");
    await everyPageShowsOnce([held, free]);
  });

  it("loses nothing when a region is cut off and both sides are written", async () => {
    const [first, , third] = pages;
    await first.cutOff(three, true);
    const here = await first.write(one, { deviceId: "thermometer-3", value: 3 });
    const there = await first.write(three, { deviceId: "thermometer-3", value: 4 });
    await first.showsOnce([here]);
    await third.showsOnce([there]);
    assert.equal((await first.rows()).has(there), false);
    assert.equal((await third.rows()).has(here), false);
    await first.simulate(20);
    await first.hasAccepted((await first.acceptances()).size + SIMULATED);
    await first.healAll();
    await first.simulate(0);
    await everyPageShowsOnce([here, there, ...(await first.acceptances()).keys()]);
  });

  it("loses nothing when Cosmos DB of a region goes offline while it is written to", async () => {
    const [first] = pages;
    await first.setCosmos(two, "offline");
    const ids = [
      await first.write(one, { deviceId: "thermometer-4", value: 5 }),
      // Its functions run, and write to the next region of their list.
      await first.write(two, { deviceId: "thermometer-4", value: 6 }),
    ];
    await first.showsOnce(ids);
    await first.setCosmos(two, "online");
    ids.push(await first.write(two, { deviceId: "thermometer-4", value: 7 }));
    await everyPageShowsOnce(ids);
  });

  it("connects again by itself when the functions of its region are back, and catches up", async () => {
    const [first] = pages;
    const page = await Dashboard.open(browser.context, cloud.dashboard, three, { droppable: true });
    await first.simulate(20);
    await first.setFunctions(three, "stopped");
    await dropped(page);
    await page.isInState("down");
    const ids = [];
    for (const value of [8, 9]) ids.push(await first.write(one, { deviceId: "thermometer-5", value }));
    await first.hasAccepted((await first.acceptances()).size + SIMULATED);
    await first.setFunctions(three, "running");
    await page.isLive();
    ids.push(await first.write(two, { deviceId: "thermometer-5", value: 10 }));
    await first.simulate(0);
    await everyPageShowsOnce(ids);
    await page.showsOnce(ids);
    await page.close();
  });

  it("connects again by itself when its connection is lost", async (t) => {
    const page = await Dashboard.open(browser.context, cloud.dashboard, three, { droppable: true });
    const [first] = pages;
    for (const value of [11, 12, 13]) {
      if (!(await dropped(page))) return t.skip(NO_WEB_SOCKET);
      const id = await first.write(one, { deviceId: "thermometer-6", value });
      await page.showsOnce([id]);
      await page.isLive();
    }
    await page.close();
  });

  it("shows events without any push too", async (t) => {
    const [first] = pages;
    const page = await Dashboard.open(browser.context, cloud.dashboard, three, { droppable: true });
    await page.block(true);
    if (!(await dropped(page))) return t.skip(NO_WEB_SOCKET);
    const ids = [];
    for (const value of [14, 15]) {
      ids.push(await first.write(one, { deviceId: "thermometer-7", value }));
      await page.showsOnce(ids);
      await page.isInState("busy");
    }
    await page.block(false);
    await page.isLive();
    await page.showsOnce(ids);
    await page.close();
  });

  it("shows at once what happened in another region when a person switches to it", async () => {
    const [first] = pages;
    const page = await Dashboard.open(browser.context, cloud.dashboard, three);
    await first.cutOff(three, true);
    const id = await first.write(one, { deviceId: "thermometer-8", value: 16 });
    await first.showsOnce([id]);
    await page.watch(one);
    await page.showsOnce([id]);
    await first.healAll();
    await page.watch(three);
    await page.isLive();
    await everyPageShowsOnce([id]);
    await page.showsOnce([id]);
    await page.close();
  });

  it("has shown every accepted event exactly once, and every region has the same events", async (t) => {
    const accepted = [...(await pages[0].acceptances()).keys()];
    await everyPageShowsOnce(accepted);
    for (const page of pages) {
      await page.isLive();
      assert.deepEqual(page.errors, []);
    }
    const deadline = Date.now() + PATIENCE_MS;
    while ((await pages[0].tally("missing")) > 0) assert.ok(Date.now() < deadline, "the page misses events of its own");

    const stored = await Promise.all(cloud.regions.map((region) => allEvents(region.functions)));
    for (const [i, events] of stored.entries()) {
      const ids = new Set(events.map(({ id }) => id));
      const { name } = cloud.regions[i];
      assert.deepEqual(
        accepted.filter((id) => !ids.has(id)),
        [],
        `accepted, but not in ${name}`,
      );
      if (cloud.isOurs)
        assert.equal(ids.size, accepted.length, `${name} has events that nobody was told were accepted`);
    }
    t.diagnostic(
      `${accepted.length} events accepted; each is in ${stored.length} regions and once in ${pages.length} pages`,
    );
  });
});

/** Everything in the feed of a region, from its beginning. */
async function allEvents(functions) {
  const events = [];
  let token = "";
  for (;;) {
    const query = new URLSearchParams({ limit: "1000", ...(token && { continuation: token }) });
    const response = await fetch(`${functions}/api/changes?${query}`);
    assert.equal(response.status, 200);
    const page = await response.json();
    events.push(...page.events);
    if (!page.hasMore) return events;
    token = page.continuation;
  }
}
