/**
 * What the page has seen: each event once, in order of arrival, however it came.
 *
 * Events come by push, at most once each, and by catch-up, every one after a token. The two overlap, and so do the
 * regions a person switches between; the id tells. While a catch-up runs, pushes wait behind it, because what it brings
 * is older. They wait for a moment only: a region that answers slowly, or not at all, must not silence its own pushes.
 */
import type { GeoEvent } from "../api/event.ts";

/** How an event reached the page. */
export type Via = "push" | "catch-up";

/** An event on the screen. */
export interface Entry {
  readonly event: GeoEvent;
  readonly via: Via;
  /** When it arrived: milliseconds since 1970. */
  readonly at: number;
}

export interface Limits {
  /** Entries kept for the screen. */
  readonly shown: number;
  /** Ids remembered to recognise duplicates. It must cover what a catch-up can bring again. */
  readonly ids: number;
  /** Pushes that may wait for a catch-up to end; with one more, all are shown. */
  readonly waiting: number;
  /** Longest wait of a push for a catch-up to end, in milliseconds. */
  readonly waitingMs: number;
}

export const LIMITS: Limits = { shown: 500, ids: 200_000, waiting: 5_000, waitingMs: 500 };

export class EventLog {
  #entries: Entry[] = [];
  /** In order of arrival: the first is the oldest, and the first to be forgotten. */
  readonly #ids = new Set<string>();
  #waiting: Entry[] = [];
  /** Set while pushes wait: ends the wait when it has lasted long enough. */
  #patience: ReturnType<typeof setTimeout> | undefined;
  #total = 0;

  constructor(
    /** Called once for each new event. */
    readonly onNew: (entry: Entry) => void = () => {},
    readonly limits: Limits = LIMITS,
    readonly now: () => number = Date.now,
  ) {}

  /** Newest first. */
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Events seen since the page was opened, those no longer shown included. */
  get total(): number {
    return this.#total;
  }

  /** Whether pushes wait at the moment. */
  get isHolding(): boolean {
    return this.#patience !== undefined;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Events that SignalR delivered. */
  push(events: readonly GeoEvent[]): void {
    const at = this.now();
    for (const event of events) {
      const entry: Entry = { event, via: "push", at };
      if (this.isHolding) this.#waiting.push(entry);
      else this.#add(entry);
      if (this.#waiting.length > this.limits.waiting) this.#release();
    }
  }

  /** From here on pushes wait until {@link endCatchUp}, but not for longer than the limits say. */
  beginCatchUp(): void {
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => this.#release(), this.limits.waitingMs);
  }

  /** One page of a catch-up. */
  caughtUp(events: readonly GeoEvent[]): void {
    const at = this.now();
    for (const event of events) this.#add({ event, via: "catch-up", at });
  }

  /** Whether it ended well or not: what was pushed meanwhile is shown. */
  endCatchUp(): void {
    this.#release();
  }

  #release(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const entry of waiting) this.#add(entry);
  }

  /** Empties the screen; what was seen stays seen. */
  clear(): void {
    this.#entries = [];
  }

  #add(entry: Entry): void {
    const { id } = entry.event;
    if (this.#ids.has(id)) return;
    this.#ids.add(id);
    if (this.#ids.size > this.limits.ids) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
    this.#total += 1;
    this.#entries.unshift(entry);
    if (this.#entries.length > this.limits.shown) this.#entries.length = this.limits.shown;
    this.onNew(entry);
  }
}
