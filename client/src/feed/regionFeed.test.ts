import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { GeoEvent } from "../api/event.ts";
import { RequestError } from "../api/problem.ts";
import { Cursor } from "./catchUp.ts";
import { EventLog } from "./eventLog.ts";
import type { Listener } from "./pushes.ts";
import { RegionFeed, SAFETY_NET_MS } from "./regionFeed.ts";
import { CONNECTION_RETRY, FALLBACK } from "./retry.ts";

const event = (id: string): GeoEvent => ({
  id,
  deviceId: "d",
  region: "West US",
  value: 1,
  time: "2026-01-01T00:00:00Z",
});

/** A region whose SignalR and whose `changes` can be down, each by itself. */
class Region {
  readonly events: GeoEvent[] = [];
  signalR = true;
  functions = true;
  /** Connections that stand. */
  readonly listeners = new Set<Listener>();
  attempts = 0;
  reads = 0;

  readonly log = new EventLog();
  readonly feed = new RegionFeed(
    "West US",
    "http://a",
    new Cursor(),
    this.log,
    () => {},
    () => {},
    Promise.resolve(),
    {
      connect: (_, listener) => ({
        start: async () => {
          this.attempts += 1;
          if (!this.signalR) throw new Error("no SignalR");
          this.listeners.add(listener);
        },
        stop: async () => {
          this.listeners.delete(listener);
        },
      }),
      readChanges: async (_, continuation) => {
        this.reads += 1;
        if (!this.functions) throw new RequestError(503, "Unavailable", "");
        const from = continuation === "now" ? this.events.length : Number(continuation);
        return { events: this.events.slice(from), continuation: String(this.events.length), hasMore: false };
      },
    },
  );

  accept(id: string, pushed = true): void {
    this.events.push(event(id));
    if (pushed) for (const listener of this.listeners) listener.onPush([event(id)]);
  }

  cut(): void {
    this.signalR = false;
    for (const listener of this.listeners) listener.onEnd("gone");
    this.listeners.clear();
  }

  shown(): string[] {
    return this.log.entries.map((entry) => entry.event.id).reverse();
  }
}

describe("the feed of a region", () => {
  let region: Region;
  beforeEach(async () => {
    vi.useFakeTimers();
    region = new Region();
    await vi.advanceTimersByTimeAsync(1);
    expect(region.feed.status).toEqual({ kind: "live" });
  });
  afterEach(async () => {
    await region.feed.stop();
    expect([region.feed.status.kind, region.listeners.size]).toEqual(["stopped", 0]);
    const { reads } = region;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(region.reads, "nothing is read after the end").toBe(reads);
    vi.useRealTimers();
  });

  it("shows what is pushed at once, and what was not by its safety net", async () => {
    region.accept("a");
    expect(region.shown()).toEqual(["a"]);
    region.accept("b", false);
    await vi.advanceTimersByTimeAsync(SAFETY_NET_MS);
    expect(region.shown()).toEqual(["a", "b"]);
  });

  it("stays live without SignalR", async () => {
    region.cut();
    for (const id of ["a", "b", "c"]) {
      region.accept(id);
      await vi.advanceTimersByTimeAsync(FALLBACK.capMs);
      expect(region.shown().at(-1)).toBe(id);
      expect(region.feed.status).toMatchObject({ polling: true });
    }
    region.signalR = true;
    await vi.advanceTimersByTimeAsync(CONNECTION_RETRY.capMs);
    expect(region.feed.status).toEqual({ kind: "live" });
    region.accept("d");
    expect(region.shown()).toEqual(["a", "b", "c", "d"]);
  });

  it("reads at once what happened between the loss of a connection and the next", async () => {
    region.cut();
    region.functions = false;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(region.feed.status).toMatchObject({ kind: "waiting", polling: false, reason: "no SignalR" });
    region.accept("a");
    region.signalR = true;
    region.functions = true;
    region.feed.retryNow();
    await vi.advanceTimersByTimeAsync(1);
    expect([region.feed.status, region.shown()]).toEqual([{ kind: "live" }, ["a"]]);
  });

  it("says that catching up fails while pushes arrive", async () => {
    region.functions = false;
    await vi.advanceTimersByTimeAsync(SAFETY_NET_MS);
    region.accept("a");
    expect(region.feed.status).toEqual({ kind: "live", warning: "catching up failed: Unavailable" });
    region.functions = true;
    await vi.advanceTimersByTimeAsync(CONNECTION_RETRY.capMs);
    expect([region.feed.status, region.shown()]).toEqual([{ kind: "live" }, ["a"]]);
  });

  it("fetches what a push that cannot be read should have brought", async () => {
    region.accept("a", false);
    for (const listener of region.listeners) listener.onPush("?");
    expect(region.feed.status).toMatchObject({ warning: expect.stringContaining("could not be read") });
    await vi.advanceTimersByTimeAsync(1);
    expect([region.feed.status, region.shown()]).toEqual([{ kind: "live" }, ["a"]]);
  });
});
