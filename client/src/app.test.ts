import { afterEach, describe, expect, it, vi } from "vitest";
import { App } from "./app.ts";

/** Generous, in milliseconds: the page asks once a second, and only a failure waits this long. */
const PATIENCE = 20_000;

/** Requests to the control API that wait for an answer, in the order in which they were sent. */
class ControlApi {
  readonly waiting: { path: string; answer: (response: Response) => void; fail: () => void }[] = [];

  constructor() {
    vi.stubGlobal("fetch", (url: string) => {
      return new Promise<Response>((resolve, reject) => {
        this.waiting.push({ path: url, answer: resolve, fail: () => reject(new TypeError("no route")) });
      });
    });
    vi.stubGlobal("location", { href: "http://127.0.0.1/" });
  }

  /** Takes the oldest request to `path`. */
  async take(path: string) {
    await vi.waitFor(() => expect(this.waiting.map((request) => request.path)).toContain(path), PATIENCE);
    const [request] = this.waiting.splice(
      this.waiting.findIndex((waiting) => waiting.path === path),
      1,
    );
    return request as NonNullable<typeof request>;
  }
}

function state(events: number): Response {
  const region = {
    name: "West US",
    functions: null,
    cosmos: { url: "http://127.0.0.1/", state: "online", events, materialized: 0 },
    signalr: { url: "http://127.0.0.1", connections: 0, messages: 0 },
  };
  return Response.json({ version: "0.1.0", account: "http://127.0.0.1/", regions: [region], links: [] });
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("a page whose regions are fixed", () => {
  it("asks for no control API", () => {
    const api = new ControlApi();
    const app = new App(() => {}, { get: () => null, set: () => {} }, [{ name: "Nearest region", functions: null }]);
    void app.run();
    expect([app.region, app.cloud, api.waiting.length]).toEqual(["Nearest region", undefined, 0]);
  });
});

describe("the state of the cloud on the page", () => {
  const start = () => {
    const api = new ControlApi();
    const app = new App(() => {}, { get: () => null, set: () => {} });
    void app.run();
    const events = () => app.cloud?.regions[0]?.cosmos.events;
    return { api, app, events };
  };

  it("is not put back by an answer that was overtaken, nor by a failure that was", async () => {
    const { api, app, events } = start();
    (await api.take("/control/state")).answer(state(1));
    await vi.waitFor(() => expect(events()).toBe(1), PATIENCE);

    for (const late of ["answer", "failure"]) {
      const old = await api.take("/control/state");
      const change = app.setRegion("West US", { cosmos: "offline" });
      (await api.take("/control/regions/West%20US")).answer(state(2));
      (await api.take("/control/state")).answer(state(3));
      await change;
      expect(events(), "asked after the change").toBe(3);

      if (late === "answer") old.answer(state(1));
      else old.fail();
      await vi.waitFor(() => expect(api.waiting.length, "the page goes on asking").toBeGreaterThan(0), PATIENCE);
      expect([events(), app.trouble, app.faultError]).toEqual([3, undefined, undefined]);
    }
  });

  it("says when a change failed, and keeps asking", async () => {
    const { api, app, events } = start();
    (await api.take("/control/state")).answer(state(1));
    await vi.waitFor(() => expect(events()).toBe(1), PATIENCE);
    const change = app.setRegion("West US", { functions: "running" });
    expect(app.pendingFaults).toContain("region/West US");
    const problem = { title: "Conflict", status: 409, detail: "the port is taken" };
    (await api.take("/control/regions/West%20US")).answer(Response.json(problem, { status: 409 }));
    (await api.take("/control/state")).answer(state(5));
    await change;
    expect([app.faultError, events(), app.pendingFaults.size]).toEqual(["Conflict: the port is taken", 5, 0]);
  });
});
