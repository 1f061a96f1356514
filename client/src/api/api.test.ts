import { describe, expect, it } from "vitest";
import { isAbsent } from "../app.ts";
import { draftOf } from "../view/write.ts";
import { parseRegions, parseState } from "./control.ts";
import { parseEvents } from "./event.ts";
import { parseChanges } from "./functions.ts";
import { parseProblem, RequestError } from "./problem.ts";

const STATE = {
  version: "0.1.0",
  account: "http://127.0.0.1:8090/",
  regions: [
    {
      name: "West US",
      functions: { url: "http://127.0.0.1:7071/", state: "running", invocations: 12, failures: 0 },
      cosmos: { url: "http://127.0.0.1:8081/", state: "online", events: 120, materialized: 14 },
      signalr: { url: "http://127.0.0.1:8888", connections: 1, messages: 44 },
    },
  ],
  links: [{ from: "West US", to: "North Europe", state: "open", lagMs: 80, pending: 0 }],
};

describe("the state document", () => {
  it("is read, with addresses that a path can be added to", () => {
    const state = parseState(STATE);
    expect(state.regions[0]?.functions?.url).toBe("http://127.0.0.1:7071");
    expect(state.links).toEqual(STATE.links);
  });

  it("may have regions without functions", () => {
    const state = parseState({ ...STATE, regions: [{ ...STATE.regions[0], functions: null }] });
    expect(state.regions[0]?.functions).toBeNull();
  });

  it.each([
    ["state is not an object", []],
    ["regions is not an array", { ...STATE, regions: {} }],
    ["regions[0].cosmos is not an object", { ...STATE, regions: [{ ...STATE.regions[0], cosmos: null }] }],
    ["links[0].state is not one of open, cut", { ...STATE, links: [{ ...STATE.links[0], state: "slow" }] }],
    ["links[0].pending is not a count", { ...STATE, links: [{ ...STATE.links[0], pending: -1 }] }],
  ])("is refused by name: %s", (message, json) => {
    expect(() => parseState(json)).toThrow(message);
  });
});

describe("regions.json", () => {
  it("gives names and addresses", () => {
    const json = { regions: [{ name: "West US", functions: "https://a.example/" }] };
    expect(parseRegions(json)).toEqual([{ name: "West US", functions: "https://a.example" }]);
  });

  it("takes http addresses only", () => {
    const json = { regions: [{ name: "West US", functions: "javascript:alert(1)" }] };
    expect(() => parseRegions(json)).toThrow("regions[0].functions is not an http(s) address");
  });

  it("is asked for where the server has no control API, not where that has trouble", () => {
    expect(isAbsent(new RequestError(404, "Not Found", ""))).toBe(true);
    expect(isAbsent(new RequestError(200, "Not JSON", ""))).toBe(true);
    expect(isAbsent(new RequestError(0, "No answer", ""))).toBe(false);
    expect(isAbsent(new RequestError(503, "Service Unavailable", ""))).toBe(false);
  });
});

describe("problems", () => {
  it("keep title, detail and the messages of each field", () => {
    const body = {
      type: "about:blank",
      title: "Invalid event",
      status: 400,
      detail: "Nothing was stored.",
      errors: [
        { path: "$.value", message: "must be a number" },
        { path: "$[2].value", message: "is missing" },
        { path: "$", message: "too many" },
        { path: 7 },
      ],
    };
    const problem = parseProblem(400, "Bad Request", JSON.stringify(body));
    expect(problem.message).toBe("Invalid event: Nothing was stored.");
    expect(problem.messagesFor("value")).toEqual(["must be a number", "is missing"]);
    expect(problem.messagesBeside(["value"])).toEqual(["$: too many"]);
    expect(problem.isTransient).toBe(false);
  });

  it("are made of whatever a proxy answers", () => {
    const problem = parseProblem(502, "Bad Gateway", `<h1>Bad\n gateway</h1>${"x".repeat(500)}`);
    expect([problem.title, problem.isTransient]).toEqual(["Bad Gateway", true]);
    expect(problem.detail).toMatch(/^<h1>Bad gateway<\/h1>x+…$/);
    expect(parseProblem(500, "", "null").title).toBe("HTTP 500");
  });
});

describe("events and changes", () => {
  const event = { id: "a", deviceId: "d", region: "West US", value: 1, time: "2026-01-01T00:00:00.000Z" };

  it("are taken without what they do not need", () => {
    expect(parseEvents([{ ...event, _ts: 1 }])).toEqual([event]);
    expect(parseChanges({ events: [event], continuation: "c", hasMore: false, region: "x" })).toEqual({
      events: [event],
      continuation: "c",
      hasMore: false,
    });
  });

  it("are refused where something is missing", () => {
    expect(() => parseEvents([{ ...event, value: "1" }])).toThrow("not an event");
    expect(() => parseEvents(event)).toThrow("not an array");
    expect(() => parseChanges({ events: [event], hasMore: false })).toThrow("no continuation");
  });
});

describe("a draft", () => {
  it("is what was typed; what is no number is left to the function to refuse", () => {
    expect(draftOf(" d ", " 21.5 ", "")).toEqual({ deviceId: "d", value: 21.5 });
    expect(draftOf("", "warm", " e1 ")).toEqual({ deviceId: "", value: "warm", id: "e1" });
    expect(draftOf("d", "", "").value).toBe("");
    expect(draftOf("d", "1e999", "").value).toBe("1e999");
  });
});
