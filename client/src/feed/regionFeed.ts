/**
 * The live feed of one region: SignalR for speed, `changes` for certainty.
 *
 * A push is delivered at most once, and not at all to who is not connected. So the feed takes a token first, connects
 * then, reads everything after the token, and does so again after every reconnect, whenever a push was unreadable or
 * dropped, and every {@link SAFETY_NET_MS} in any case. It never gives up; only {@link RegionFeed.stop} ends it.
 */
import { HubConnectionBuilder, LogLevel } from "@microsoft/signalr";
import { parseEvents } from "../api/event.ts";
import { readChanges } from "../api/functions.ts";
import { describe } from "../api/problem.ts";
import type { CaughtUp, Cursor } from "./catchUp.ts";
import type { EventLog } from "./eventLog.ts";
import { CONNECTION_RETRY, pause, retryDelay } from "./retry.ts";

/** Client method that the functions invoke with one argument, an array of events. */
const TARGET = "console";

/** Time between catch-ups while the connection stands. */
export const SAFETY_NET_MS = 10_000;

/** Time until a catch-up that was wanted at once, or failed, runs again. */
const SOON_MS = 1_000;

/** What to tell the person about the feed. */
export type FeedStatus =
  | { readonly kind: "connecting" }
  /** `warning`: pushes arrive, but the last catch-up did not succeed. */
  | { readonly kind: "live"; readonly warning?: string }
  /** Not connected; the next attempt is at `until` (milliseconds since 1970). */
  | { readonly kind: "waiting"; readonly until: number; readonly reason: string }
  | { readonly kind: "stopped" };

export class RegionFeed {
  #status: FeedStatus = { kind: "connecting" };
  readonly #end = new AbortController();
  #wake = new AbortController();
  readonly #finished: Promise<void>;

  constructor(
    readonly region: string,
    /** Origin of the region's functions. */
    readonly functions: string,
    readonly cursor: Cursor,
    readonly log: EventLog,
    readonly onStatus: () => void,
    readonly onCaughtUp: (outcome: CaughtUp) => void,
    /** The feed that wrote to the log before: the log has one writer at a time. */
    after: Promise<void>,
  ) {
    this.#finished = after.then(() => this.#run());
  }

  get status(): FeedStatus {
    return this.#status;
  }

  /** Ends the wait for the next attempt, or for the next catch-up. */
  retryNow(): void {
    this.#wake.abort();
  }

  /** Ends the feed; resolves when nothing of it writes to the log any more. */
  stop(): Promise<void> {
    this.#end.abort();
    this.#wake.abort();
    return this.#finished;
  }

  #set(status: FeedStatus): void {
    this.#status = status;
    this.onStatus();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#end.signal.aborted) {
      this.#set({ kind: "connecting" });
      let reason: string;
      try {
        reason = await this.#connection(() => {
          failures = 0;
        });
      } catch (error) {
        reason = describe(error);
      }
      if (this.#end.signal.aborted) break;
      failures += 1;
      const delay = retryDelay(failures, CONNECTION_RETRY);
      this.#set({ kind: "waiting", until: Date.now() + delay, reason });
      await this.#sleep(delay);
    }
    this.#set({ kind: "stopped" });
  }

  /** One connection, from negotiate to its end; returns why it ended. */
  async #connection(connected: () => void): Promise<string> {
    const read = (continuation: string) => readChanges(this.functions, continuation, this.#end.signal);
    // Before connecting: what is pushed from now on is also after this token.
    await this.cursor.hold(read);
    if (this.#end.signal.aborted) return "stopped";

    // The client's own log would name URLs with access tokens; what it has to say arrives here as errors.
    const connection = new HubConnectionBuilder()
      .withUrl(`${this.functions}/api`)
      .configureLogging(LogLevel.None)
      .build();
    let ended: string | undefined;
    let badPush: string | undefined;
    connection.onclose((error) => {
      ended = error ? describe(error) : "the service closed the connection";
      this.#wake.abort();
    });
    connection.on(TARGET, (events: unknown) => {
      try {
        this.log.push(parseEvents(events));
      } catch (error) {
        badPush = `a push could not be read (${describe(error)})`;
      }
      if (badPush || this.log.isBehind) this.#wake.abort();
    });
    const stop = () => void connection.stop().catch(this.#failedToStop);
    this.#end.signal.addEventListener("abort", stop);
    try {
      await connection.start();
      connected();
      this.#set({ kind: "live" });
      while (ended === undefined && !this.#end.signal.aborted) {
        let warning = badPush;
        badPush = undefined;
        try {
          this.onCaughtUp(await this.cursor.catchUp(read, this.log));
        } catch (error) {
          warning = `catching up failed: ${describe(error)}`;
        }
        if (ended !== undefined || this.#end.signal.aborted) break;
        this.#set(warning === undefined ? { kind: "live" } : { kind: "live", warning });
        const again = warning !== undefined || this.log.isBehind;
        await this.#sleep(again ? SOON_MS : SAFETY_NET_MS);
      }
      return ended ?? "stopped";
    } finally {
      this.#end.signal.removeEventListener("abort", stop);
      connection.off(TARGET);
      await connection.stop().catch(this.#failedToStop);
    }
  }

  /** A connection that cannot even be stopped carries nothing any more; that it failed is all there is to say. */
  readonly #failedToStop = (error: unknown): void => {
    this.#set({ kind: "waiting", until: Date.now(), reason: `the connection did not end well: ${describe(error)}` });
  };

  async #sleep(ms: number): Promise<void> {
    this.#wake = new AbortController();
    if (this.#end.signal.aborted) return;
    await pause(ms, this.#wake.signal);
  }
}
