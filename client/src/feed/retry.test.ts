import { describe, expect, it } from "vitest";
import { Alarm, CONNECTION_RETRY, pause, retryDelay } from "./retry.ts";

describe("the retry delay", () => {
  it("doubles, with half of it left to chance, up to the cap", () => {
    const least = [1, 2, 3, 4, 5, 6].map((failures) => retryDelay(failures, CONNECTION_RETRY, () => 0));
    const most = [1, 2, 3, 4, 5, 6].map((failures) => retryDelay(failures, CONNECTION_RETRY, () => 1));
    expect(least).toEqual([250, 500, 1000, 2000, 4000, 5000]);
    expect(most).toEqual([500, 1000, 2000, 4000, 8000, 10_000]);
  });

  it("has no last attempt", () => {
    expect(retryDelay(100_000, CONNECTION_RETRY, () => 1)).toBe(CONNECTION_RETRY.capMs);
    expect(retryDelay(0, CONNECTION_RETRY)).toBe(0);
  });
});

describe("a pause", () => {
  it("ends at once when it is woken, and when it was woken before", async () => {
    const wake = new AbortController();
    const long = pause(1e8, wake.signal);
    wake.abort();
    await long;
    await pause(1e8, wake.signal);
  });
});

describe("an alarm", () => {
  it("ends the wait it is rung in, or the next one, and only that", async () => {
    const alarm = new Alarm();
    const long = alarm.sleep(1e8);
    alarm.ring();
    await long;
    alarm.ring();
    alarm.ring();
    await alarm.sleep(1e8);
    const third = await Promise.race([alarm.sleep(1e8).then(() => "rung"), pause(5, new AbortController().signal)]);
    expect(third).toBeUndefined();
  });
});
