/**
 * Devices to watch: a bounded stream of events to random regions.
 *
 * Like a device in the field it names the event itself and, without an answer, sends the same event to the same region
 * again: one id is one event, however often it is sent.
 */
import { type Draft, writeEvent } from "./api/functions.ts";
import { describe, RequestError } from "./api/problem.ts";
import { CONNECTION_RETRY, pause, retryDelay } from "./feed/retry.ts";
import type { Tally } from "./tally.ts";

/** Events per second that can be asked for. */
export const RATES = { min: 1, max: 20 } as const;

/** Devices that report. */
const DEVICES = 12;

/** Events on their way at a time; when that many wait for an answer, no new ones are made. */
const MAX_IN_FLIGHT = 64;

/** Events that may be missing on the screen; with more, no new ones are made. */
export const MAX_MISSING = 10_000;

/** Times one event is sent before it counts as unanswered: about eight seconds. */
const MAX_ATTEMPTS = 6;

/** A region to write to. */
export interface Target {
  readonly name: string;
  readonly functions: string;
}

export class Simulator {
  #timer: ReturnType<typeof setInterval> | undefined;
  #rate = 5;
  #inFlight = 0;
  #unanswered = 0;
  #refused = 0;
  #lastError: string | undefined;
  readonly #levels = Array.from({ length: DEVICES }, () => 15 + Math.random() * 10);
  readonly #never = new AbortController().signal;

  constructor(
    /** Regions that take writes at the moment. */
    readonly targets: () => readonly Target[],
    readonly tally: Tally,
    readonly onChange: () => void,
    readonly write: typeof writeEvent = writeEvent,
    readonly wait: typeof pause = pause,
  ) {}

  get isRunning(): boolean {
    return this.#timer !== undefined;
  }
  get rate(): number {
    return this.#rate;
  }
  get inFlight(): number {
    return this.#inFlight;
  }
  /** Events given up without an answer; they may be stored all the same. */
  get unanswered(): number {
    return this.#unanswered;
  }
  /** Events that a region said no to. */
  get refused(): number {
    return this.#refused;
  }
  get lastError(): string | undefined {
    return this.#lastError;
  }

  /** Why no events are made although it runs. */
  get blocked(): string | undefined {
    if (!this.isRunning) return undefined;
    if (this.targets().length === 0) return "no region takes writes";
    if (this.#inFlight >= MAX_IN_FLIGHT) return `${MAX_IN_FLIGHT} events wait for an answer`;
    if (this.tally.missing >= MAX_MISSING) return `${MAX_MISSING} events are missing on the screen`;
    return undefined;
  }

  setRate(rate: number): void {
    this.#rate = Math.min(RATES.max, Math.max(RATES.min, Math.round(rate) || RATES.min));
    if (this.isRunning) this.start();
    this.onChange();
  }

  start(): void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), 1000 / this.#rate);
    this.onChange();
  }

  /** Makes no more events; those on their way go on. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.onChange();
  }

  #tick(): void {
    if (this.blocked === undefined) {
      const targets = this.targets();
      const target = targets[Math.floor(Math.random() * targets.length)];
      if (target) void this.send(target, this.#draft());
    }
    this.onChange();
  }

  /** Sends one event until it is answered or {@link MAX_ATTEMPTS} are over. Never rejects: the outcome is counted. */
  async send(target: Target, draft: Draft & { id: string }): Promise<void> {
    this.#inFlight += 1;
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await this.write(target.functions, draft);
          this.tally.accept(draft.id);
          return;
        } catch (error) {
          this.#lastError = `${target.name}: ${describe(error)}`;
          if (!(error instanceof RequestError) || !error.isTransient) {
            this.#refused += 1;
            return;
          }
          if (attempt === MAX_ATTEMPTS) {
            this.#unanswered += 1;
            return;
          }
        }
        await this.wait(retryDelay(attempt, CONNECTION_RETRY), this.#never);
      }
    } finally {
      this.#inFlight -= 1;
      this.onChange();
    }
  }

  #draft(): Draft & { id: string } {
    const device = Math.floor(Math.random() * DEVICES);
    const level = (this.#levels[device] ?? 20) + (Math.random() - 0.5) * 2;
    this.#levels[device] = Math.min(45, Math.max(-10, level));
    return {
      id: crypto.randomUUID(),
      deviceId: `device-${String(device + 1).padStart(2, "0")}`,
      value: Math.round(level * 100) / 100,
    };
  }
}
