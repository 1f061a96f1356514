/** The state of the page and what a person can do to it. The views under `view/` show it and call its methods. */
import * as control from "./api/control.ts";
import type { GeoEvent } from "./api/event.ts";
import { type Draft, type Maximum, readChanges, readDevice, writeEvent } from "./api/functions.ts";
import { describe, RequestError } from "./api/problem.ts";
import { type CaughtUp, Cursor } from "./feed/catchUp.ts";
import { EventLog } from "./feed/eventLog.ts";
import { RegionFeed } from "./feed/regionFeed.ts";
import { POLL_RETRY, pause, retryDelay } from "./feed/retry.ts";
import { Simulator, type Target } from "./simulator.ts";
import { Tally } from "./tally.ts";

/** Time between two looks at the control API. */
const POLL_MS = 1_000;

/** Time between two attempts to take a token of a region that is not watched. */
const HOLD_MS = 5_000;

/** The outcome of a request that a person asked for. */
export type Outcome<T> =
  | { readonly kind: "none" }
  | { readonly kind: "busy" }
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "failed"; readonly error: RequestError };

export class App {
  readonly tally = new Tally((id) => this.log.has(id));
  readonly log: EventLog = new EventLog((entry) => {
    this.tally.see(entry.event.id);
    this.changed();
  });
  readonly simulator = new Simulator(
    () => this.writable(),
    this.tally,
    () => this.changed(),
  );

  regions: readonly control.RegionAddress[] = [];
  /** Of the control API; `undefined` for a page without it. */
  cloud: control.CloudState | undefined;
  /** Why the regions, or their state, are not known at the moment. */
  trouble: string | undefined;
  /** Why the last cut, heal, stop or start failed. */
  faultError: string | undefined;
  /** Faults that are being applied: `region/…` and `link/…`. */
  readonly pendingFaults = new Set<string>();
  /** Regions of which no token could be taken yet, and why: what happens there now is not seen after a switch. */
  readonly untracked = new Map<string, string>();
  region: string | undefined;
  feed: RegionFeed | undefined;
  /** Something the person should know about what is on the screen. */
  note: string | undefined;
  write: Outcome<GeoEvent> = { kind: "none" };
  read: Outcome<{ deviceId: string; region: string; rows: Maximum[] }> = { kind: "none" };

  /** Looks at the control API are numbered, so that an answer that comes late does not undo one asked for later. */
  #asked = 0;
  #answered = 0;
  readonly #cursors = new Map<string, Cursor>();
  readonly #forever = new AbortController().signal;

  constructor(
    /** Something to show has changed. */
    readonly changed: () => void,
    /** Where the chosen region is kept. */
    readonly location: { get(): string | null; set(region: string): void },
    /** Regions that the build has fixed; without them the page finds out. */
    readonly fixed?: readonly control.RegionAddress[],
  ) {}

  /** Finds the regions, then keeps the page true for as long as it is open. */
  async run(): Promise<void> {
    if (this.fixed) {
      this.regions = this.fixed;
      this.#settle();
      return;
    }
    let failures = 0;
    let hasControl: boolean | undefined;
    while (hasControl !== false) {
      try {
        await this.#look();
        hasControl = true;
        failures = 0;
      } catch (error) {
        if (hasControl === undefined && isAbsent(error)) {
          hasControl = await this.#withoutControl();
          if (hasControl === false) break;
        } else {
          this.trouble = `The control API does not answer; trying again. ${describe(error)}`;
        }
        failures += 1;
      }
      this.changed();
      await pause(failures === 0 ? POLL_MS : retryDelay(failures, POLL_RETRY), this.#forever);
    }
    this.changed();
  }

  /** `false` once the list of regions is known, `undefined` to look again. */
  async #withoutControl(): Promise<false | undefined> {
    try {
      this.regions = await control.readRegions();
      this.trouble = undefined;
      this.#settle();
      return false;
    } catch (error) {
      this.trouble = `No regions found: there is neither a control API nor a regions.json here. ${describe(error)}`;
      return undefined;
    }
  }

  /** Asks the control API how things are. An answer that has been overtaken by a later question's changes nothing. */
  async #look(): Promise<void> {
    this.#asked += 1;
    const number = this.#asked;
    let cloud: control.CloudState;
    try {
      cloud = await control.readState();
    } catch (error) {
      if (number < this.#answered) return;
      throw error;
    }
    if (number < this.#answered) return;
    this.#answered = number;
    this.cloud = cloud;
    this.trouble = undefined;
    this.regions = cloud.regions.map(({ name, functions }) => ({ name, functions: functions?.url ?? null }));
    this.#settle();
  }

  /** Takes a token in each region, and chooses one if none is chosen. */
  #settle(): void {
    for (const { name } of this.regions) {
      if (!this.#cursors.has(name)) void this.#hold(name, this.#cursor(name));
    }
    const known = (name: string | null | undefined) => this.regions.some((region) => region.name === name);
    if (!known(this.region)) {
      const wanted = this.location.get();
      if (wanted !== null && !known(wanted) && this.region === undefined) {
        this.note = `There is no region “${wanted}” here.`;
      }
      const choice = known(wanted) ? wanted : this.regions[0]?.name;
      if (choice) this.watch(choice);
    } else if (this.region && this.feed?.functions !== this.#address(this.region)) {
      // The same region at another address: the local cloud was started again.
      this.#watch(this.region);
    }
  }

  /** Origin of a region's functions, if it has any. */
  #address(name: string): string | undefined {
    return this.regions.find((region) => region.name === name)?.functions ?? undefined;
  }

  #cursor(name: string): Cursor {
    const cursor = this.#cursors.get(name) ?? new Cursor();
    this.#cursors.set(name, cursor);
    return cursor;
  }

  /** Takes a token in a region although it is not watched: whoever switches there later sees what came meanwhile. */
  async #hold(name: string, cursor: Cursor): Promise<void> {
    while (!cursor.isHeld) {
      const functions = this.#address(name);
      try {
        if (functions) await cursor.hold((continuation) => readChanges(functions, continuation));
        this.untracked.delete(name);
      } catch (error) {
        this.untracked.set(name, describe(error));
      }
      this.changed();
      if (!cursor.isHeld) await pause(HOLD_MS, this.#forever);
    }
  }

  /** Watches another region. What is on the screen stays. */
  watch(name: string): void {
    if (this.region !== name) this.#watch(name);
  }

  #watch(name: string): void {
    this.region = name;
    this.location.set(name);
    const before = this.feed?.stop() ?? Promise.resolve();
    this.feed = undefined;
    const functions = this.#address(name);
    if (functions) {
      this.feed = new RegionFeed(
        name,
        functions,
        this.#cursor(name),
        this.log,
        () => this.changed(),
        (outcome) => this.#caughtUp(name, outcome),
        before,
      );
    }
    this.changed();
  }

  #caughtUp(region: string, outcome: CaughtUp): void {
    if (outcome !== "restarted") return;
    this.note = `${region} does not know where this page had read to: its data is new, or another region answers in its place. The console is live from now on.`;
    this.changed();
  }

  /** Regions whose functions are not known to be away. */
  writable(): Target[] {
    return this.regions.flatMap(({ name, functions }) => {
      const state = this.cloud?.regions.find((region) => region.name === name)?.functions?.state;
      return functions && (state === undefined || state === "running") ? [{ name, functions }] : [];
    });
  }

  #functions(region: string): string {
    const functions = this.#address(region);
    if (!functions) throw new RequestError(0, "No functions", `${region} runs no functions`);
    return functions;
  }

  async writeEvent(region: string, draft: Draft): Promise<void> {
    this.write = { kind: "busy" };
    this.changed();
    this.write = await outcome(async () => {
      const event = await writeEvent(this.#functions(region), draft);
      this.tally.accept(event.id);
      return event;
    });
    this.changed();
  }

  async readDevice(region: string, deviceId: string): Promise<void> {
    this.read = { kind: "busy" };
    this.changed();
    this.read = await outcome(async () => {
      if (deviceId === "") throw new RequestError(0, "No device", "name the device to read");
      return { deviceId, region, rows: await readDevice(this.#functions(region), deviceId) };
    });
    this.changed();
  }

  setRegion(name: string, change: control.RegionChange): Promise<void> {
    return this.#fault([`region/${name}`], [() => control.changeRegion(name, change)]);
  }

  setLinks(links: readonly control.LinkState[], change: control.LinkChange): Promise<void> {
    return this.#fault(
      links.map(({ from, to }) => linkKey(from, to)),
      links.map(
        ({ from, to }) =>
          () =>
            control.changeLink(from, to, change),
      ),
    );
  }

  async #fault(keys: readonly string[], changes: readonly (() => Promise<void>)[]): Promise<void> {
    for (const key of keys) this.pendingFaults.add(key);
    this.faultError = undefined;
    this.changed();
    try {
      // All at once: a region is cut off in one stroke, or as nearly as can be.
      const outcomes = await Promise.allSettled(changes.map((change) => change()));
      const failed = outcomes.find((outcome) => outcome.status === "rejected");
      if (failed) this.faultError = describe(failed.reason);
      await this.#look();
    } catch (error) {
      this.faultError ??= describe(error);
    } finally {
      for (const key of keys) this.pendingFaults.delete(key);
      this.changed();
    }
  }
}

/** Key of a link in {@link App.pendingFaults}. */
export function linkKey(from: string, to: string): string {
  return `link/${from}/${to}`;
}

/** Whether an answer says that this server has no control API: no such path, or a page of its own instead. */
export function isAbsent(error: unknown): boolean {
  return error instanceof RequestError && (error.status === 404 || error.title === "Not JSON");
}

async function outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { kind: "done", value: await work() };
  } catch (error) {
    const known = error instanceof RequestError ? error : new RequestError(0, "The page failed", describe(error));
    return { kind: "failed", error: known };
  }
}
