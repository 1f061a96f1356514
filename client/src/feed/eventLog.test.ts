import { describe, expect, it, vi } from "vitest";
import type { GeoEvent } from "../api/event.ts";
import type { Changes } from "../api/functions.ts";
import { RequestError } from "../api/problem.ts";
import { Cursor, type ReadChanges } from "./catchUp.ts";
import { EventLog, LIMITS } from "./eventLog.ts";

function event(id: string): GeoEvent {
  return { id, deviceId: "d", region: "West US", value: 1, time: "2026-01-01T00:00:00.000Z" };
}

const ids = (log: EventLog) => log.entries.map((entry) => entry.event.id);

/** Numbers that look random and are the same in every run (mulberry32). */
function seeded(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A region whose feed is a list; the token is a position in it. */
class Feed {
  readonly events: GeoEvent[] = [];
  failing = () => false;
  onPage = () => {};
  pageSize = 3;

  read: ReadChanges = async (continuation): Promise<Changes> => {
    await Promise.resolve();
    if (this.failing()) throw new RequestError(0, "No answer", "");
    if (continuation === "now") return { events: [], continuation: String(this.events.length), hasMore: false };
    const from = Number(continuation);
    if (Number.isNaN(from)) throw new RequestError(400, "Bad token", "");
    const events = this.events.slice(from, from + this.pageSize);
    const answer = {
      events,
      continuation: String(from + events.length),
      hasMore: from + events.length < this.events.length,
    };
    this.onPage();
    return answer;
  };
}

describe("the event log", () => {
  it("shows an event once, newest on top", () => {
    const log = new EventLog();
    log.push([event("a"), event("b")]);
    log.push([event("b"), event("c")]);
    log.caughtUp([event("a"), event("d")]);
    expect(ids(log)).toEqual(["d", "c", "b", "a"]);
    expect(log.total).toBe(4);
  });

  it("lets pushes wait behind a catch-up, which brings what is older", () => {
    const log = new EventLog();
    log.beginCatchUp();
    log.push([event("new")]);
    log.caughtUp([event("old")]);
    expect(ids(log)).toEqual(["old"]);
    log.endCatchUp();
    expect(ids(log)).toEqual(["new", "old"]);
    expect(log.entries.map((entry) => entry.via)).toEqual(["push", "catch-up"]);
  });

  it("keeps within its limits", () => {
    const log = new EventLog(() => {}, { ...LIMITS, shown: 2, ids: 3, waiting: 1 });
    log.beginCatchUp();
    log.push([event("a")]);
    expect(ids(log)).toEqual([]);
    log.push([event("b")]);
    expect([ids(log), log.isHolding], "with one too many, all are shown").toEqual([["b", "a"], false]);
    log.push([event("c"), event("d")]);
    expect(ids(log)).toEqual(["d", "c"]);
    expect([log.has("a"), log.has("b"), log.total]).toEqual([false, true, 4]);
  });

  it("holds pushes back for a moment only, however long a catch-up takes", () => {
    vi.useFakeTimers();
    try {
      const log = new EventLog();
      log.beginCatchUp();
      log.push([event("a")]);
      vi.advanceTimersByTime(LIMITS.waitingMs - 1);
      expect(ids(log)).toEqual([]);
      vi.advanceTimersByTime(1);
      expect(ids(log)).toEqual(["a"]);
      log.push([event("b")]);
      expect(ids(log), "the catch-up still runs").toEqual(["b", "a"]);
      log.caughtUp([event("a"), event("older")]);
      log.endCatchUp();
      expect(ids(log)).toEqual(["older", "b", "a"]);
      log.beginCatchUp();
      log.push([event("c")]);
      expect(ids(log), "the next one begins anew").toEqual(["older", "b", "a"]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("does not show again what was cleared", () => {
    const log = new EventLog();
    log.push([event("a")]);
    log.clear();
    log.push([event("a")]);
    expect([ids(log), log.total]).toEqual([[], 1]);
  });
});

describe("the cursor", () => {
  it("stays where it is when a second answer for the same question comes later", async () => {
    const feed = new Feed();
    const cursor = new Cursor();
    const first = cursor.hold(feed.read);
    const second = cursor.hold(async () => {
      await first;
      return { events: [], continuation: "99", hasMore: false };
    });
    feed.events.push(event("a"));
    await Promise.all([first, second]);
    const log = new EventLog();
    const seen: string[] = [];
    await cursor.catchUp(async (token) => {
      seen.push(token);
      return { events: [], continuation: token, hasMore: false };
    }, log);
    expect(seen).toEqual(["1"]);
  });

  it("starts anew where the region does not know the token, and says so", async () => {
    const feed = new Feed();
    const cursor = new Cursor();
    const log = new EventLog();
    await cursor.hold(async () => ({ events: [], continuation: "of another life", hasMore: false }));
    expect(await cursor.catchUp(feed.read, log)).toBe("restarted");
    expect(log.isHolding).toBe(false);
    feed.events.push(event("a"));
    expect(await cursor.catchUp(feed.read, log)).toBe("complete");
    expect(ids(log)).toEqual(["a"]);
  });

  it("keeps its place when the region fails half way", async () => {
    const feed = new Feed();
    const cursor = new Cursor();
    const log = new EventLog();
    await cursor.hold(feed.read);
    feed.events.push(...["a", "b", "c", "d", "e"].map(event));
    let pages = 0;
    feed.failing = () => ++pages === 2;
    await expect(cursor.catchUp(feed.read, log)).rejects.toThrow("No answer");
    expect(ids(log)).toEqual(["c", "b", "a"]);
    expect(log.isHolding).toBe(false);
    expect(await cursor.catchUp(feed.read, log)).toBe("complete");
    expect(ids(log)).toEqual(["e", "d", "c", "b", "a"]);
  });
});

describe("pushes, catch-ups, lost connections and switched regions in any order", () => {
  it.each(Array.from({ length: 200 }, (_, seed) => seed))(
    "lose nothing and show nothing twice (seed %i)",
    async (seed) => {
      const random = seeded(seed);
      const chance = (p: number) => random() < p;
      const feeds = [new Feed(), new Feed()] as const;
      const cursors = [new Cursor(), new Cursor()] as const;
      const news: string[] = [];
      const log = new EventLog((entry) => news.push(entry.event.id), {
        ...LIMITS,
        shown: 1_000,
        ids: 1_000,
        waiting: 2,
      });
      const expected: string[] = [];
      let watched = 0;
      let connected = true;

      /** A region accepts an event; the other gets it too, in an order of its own. The push may be lost or repeated. */
      const late: (() => void)[] = [];
      const accept = () => {
        const made = event(`e${expected.length}`);
        expected.push(made.id);
        for (const [i, feed] of feeds.entries()) {
          const apply = () => {
            feed.events.push(made);
            if (i !== watched || !connected || chance(0.3)) return;
            log.push([made]);
            if (chance(0.2)) log.push([made]);
          };
          if (chance(0.5)) apply();
          else late.push(apply);
        }
      };
      const replicate = () => {
        const [next] = late.splice(Math.floor(random() * late.length), 1);
        next?.();
      };

      for (const [i, cursor] of cursors.entries()) await cursor.hold((feeds[i] as Feed).read);
      for (const feed of feeds) {
        feed.failing = () => chance(0.2);
        feed.onPage = () => {
          if (chance(0.5) && expected.length < 120) accept();
        };
      }
      for (let step = 0; step < 80; step += 1) {
        if (chance(0.5)) accept();
        if (chance(0.5)) replicate();
        if (chance(0.1)) connected = !connected;
        if (chance(0.1)) watched = 1 - watched;
        if (chance(0.3)) {
          const outcome = (cursors[watched] as Cursor).catchUp((feeds[watched] as Feed).read, log);
          await outcome.catch((error: unknown) => expect(error).toBeInstanceOf(RequestError));
        }
      }
      while (late.length > 0) replicate();
      const feed = feeds[watched] as Feed;
      feed.failing = () => false;
      feed.onPage = () => {};
      expect(await (cursors[watched] as Cursor).catchUp(feed.read, log)).toBe("complete");

      expect([...news].sort()).toEqual([...expected].sort());
      expect(ids(log)).toEqual([...news].reverse());
    },
  );
});
