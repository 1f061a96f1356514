import { describe, expect, it } from "vitest";
import type { GeoEvent } from "./api/event.ts";
import { RequestError } from "./api/problem.ts";
import { Simulator } from "./simulator.ts";
import { Tally } from "./tally.ts";

const TARGET = { name: "West US", functions: "http://a" };
const DRAFT = { id: "e1", deviceId: "d", value: 1 };
const STORED: GeoEvent = { ...DRAFT, region: "West US", time: "2026-01-01T00:00:00.000Z" };

/** A simulator whose writes come to `answers`, one after the other, the last for ever. */
function simulator(answers: (RequestError | GeoEvent)[]) {
  const tally = new Tally(() => false);
  const sent: unknown[] = [];
  const write = async (_: string, draft: unknown) => {
    const answer = answers[Math.min(sent.length, answers.length - 1)];
    sent.push(draft);
    if (answer instanceof RequestError) throw answer;
    return answer as GeoEvent;
  };
  const made = new Simulator(
    () => [TARGET],
    tally,
    () => {},
    write,
    async () => {},
  );
  return { made, tally, sent };
}

describe("a simulated device", () => {
  it("sends the same event again until it is answered", async () => {
    const { made, tally, sent } = simulator([
      new RequestError(0, "No answer", ""),
      new RequestError(503, "Busy", ""),
      STORED,
    ]);
    await made.send(TARGET, DRAFT);
    expect(sent).toEqual([DRAFT, DRAFT, DRAFT]);
    expect([tally.accepted, made.unanswered, made.refused, made.inFlight]).toEqual([1, 0, 0, 0]);
  });

  it("gives up in the end, and counts that", async () => {
    const { made, tally, sent } = simulator([new RequestError(0, "No answer", "")]);
    await made.send(TARGET, DRAFT);
    expect([sent.length, tally.accepted, made.unanswered, made.inFlight]).toEqual([6, 0, 1, 0]);
  });

  it("does not send again what was refused", async () => {
    const { made, sent } = simulator([new RequestError(400, "Bad Request", "too warm")]);
    await made.send(TARGET, DRAFT);
    expect([sent.length, made.refused, made.lastError]).toEqual([1, 1, "West US: Bad Request: too warm"]);
  });

  it("keeps its rate within bounds", () => {
    const { made } = simulator([STORED]);
    const rates = [0, 7, 1000, Number.NaN].map((rate) => {
      made.setRate(rate);
      return made.rate;
    });
    expect(rates).toEqual([1, 7, 20, 1]);
  });
});

describe("the tally", () => {
  it("counts as missing what was accepted and not seen, in whichever order the two happen", () => {
    const seen = new Set<string>();
    const tally = new Tally((id) => seen.has(id));
    const see = (id: string) => {
      seen.add(id);
      tally.see(id);
    };
    tally.accept("a");
    see("b");
    tally.accept("b");
    tally.accept("c");
    tally.accept("c");
    expect([tally.accepted, tally.seen, tally.missing]).toEqual([3, 1, 2]);
    see("a");
    see("c");
    see("of another page");
    expect([tally.accepted, tally.seen, tally.missing]).toEqual([3, 3, 0]);
  });
});
