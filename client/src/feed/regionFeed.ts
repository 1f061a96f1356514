/**
 * The live feed of one region: SignalR for speed, `changes` for certainty.
 *
 * A push is delivered at most once, and not at all to who is not connected. So two loops run side by side. One takes a
 * token and then keeps a connection. The other reads everything after the token: at once when the connection has come
 * or gone, every {@link SAFETY_NET_MS} while it stands, and every {@link FALLBACK} while it does not, so that the console
 * stays live without SignalR. Neither gives up; only {@link RegionFeed.stop} ends them.
 */
import { parseEvents } from "../api/event.ts";
import { readChanges } from "../api/functions.ts";
import { describe } from "../api/problem.ts";
import type { CaughtUp, Cursor } from "./catchUp.ts";
import type { EventLog } from "./eventLog.ts";
import { type Connect, connectSignalR } from "./pushes.ts";
import { Alarm, CONNECTION_RETRY, FALLBACK, retryDelay } from "./retry.ts";

/** Time between catch-ups while the connection stands. */
export const SAFETY_NET_MS = 10_000;

/** What to tell the person about the feed. */
export type FeedStatus =
  | { readonly kind: "connecting"; readonly polling: boolean }
  /** `warning`: pushes arrive, but not everything is as it should be. */
  | { readonly kind: "live"; readonly warning?: string }
  /**
   * Not connected; the next attempt is at `until` (milliseconds since 1970). While it is `polling`, events arrive all
   * the same, a little later.
   */
  | { readonly kind: "waiting"; readonly polling: boolean; readonly until: number; readonly reason: string }
  | { readonly kind: "stopped" };

type Push =
  | { readonly kind: "connecting" }
  | { readonly kind: "live" }
  | { readonly kind: "waiting"; readonly until: number; readonly reason: string }
  | { readonly kind: "stopped" };

/** How the feed reaches its region. */
export interface Access {
  readonly connect: Connect;
  readonly readChanges: typeof readChanges;
}

export class RegionFeed {
  #push: Push = { kind: "connecting" };
  /** Whether the last catch-up succeeded. */
  #polling = false;
  /** What went wrong although the connection stands. */
  #warning: string | undefined;
  readonly #end = new AbortController();
  readonly #retry = new Alarm();
  readonly #catchUp = new Alarm();
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
    readonly access: Access = { connect: connectSignalR, readChanges },
  ) {
    this.#finished = after.then(() => this.#run());
  }

  get status(): FeedStatus {
    const push = this.#push;
    if (push.kind === "stopped") return push;
    if (push.kind !== "live") return { ...push, polling: this.#polling };
    return this.#warning === undefined ? push : { ...push, warning: this.#warning };
  }

  /** Ends the wait for the next attempt to connect, and for the next catch-up. */
  retryNow(): void {
    this.#retry.ring();
    this.#catchUp.ring();
  }

  /** Ends the feed; resolves when nothing of it writes to the log any more. */
  stop(): Promise<void> {
    this.#end.abort();
    this.retryNow();
    return this.#finished;
  }

  get #isOver(): boolean {
    return this.#end.signal.aborted;
  }

  #set(push: Push): void {
    this.#push = push;
    this.onStatus();
  }

  async #run(): Promise<void> {
    await Promise.all([this.#stayConnected(), this.#keepCaughtUp()]);
    this.#set({ kind: "stopped" });
  }

  readonly #read = (continuation: string) => this.access.readChanges(this.functions, continuation, this.#end.signal);

  async #stayConnected(): Promise<void> {
    let failures = 0;
    while (!this.#isOver) {
      this.#set({ kind: "connecting" });
      let reason: string;
      try {
        reason = await this.#connection(() => {
          failures = 0;
        });
      } catch (error) {
        reason = describe(error);
      }
      if (this.#isOver) break;
      failures += 1;
      const delay = retryDelay(failures, CONNECTION_RETRY);
      this.#set({ kind: "waiting", until: Date.now() + delay, reason });
      this.#catchUp.ring();
      await this.#retry.sleep(delay);
    }
  }

  /** One connection, from negotiate to its end; returns why it ended. */
  async #connection(connected: () => void): Promise<string> {
    // Before connecting: what is pushed from now on is also after this token.
    await this.cursor.hold(this.#read);
    if (this.#isOver) return "stopped";

    let end: (reason: string) => void = () => {};
    const ended = new Promise<string>((resolve) => {
      end = resolve;
    });
    const connection = this.access.connect(this.functions, {
      onEnd: end,
      onPush: (argument) => {
        try {
          this.log.push(parseEvents(argument));
        } catch (error) {
          this.#warning = `a push could not be read (${describe(error)}), so its events were fetched`;
          this.#catchUp.ring();
        }
      },
    });
    const stop = () => {
      end("stopped");
      // A connection that is being made ends by this; how is told where it is awaited.
      connection.stop().catch(this.#failedToStop);
    };
    this.#end.signal.addEventListener("abort", stop);
    try {
      await connection.start();
      connected();
      this.#set({ kind: "live" });
      this.#catchUp.ring();
      return await ended;
    } finally {
      this.#end.signal.removeEventListener("abort", stop);
      await connection.stop().catch(this.#failedToStop);
    }
  }

  /** A connection that cannot even be stopped carries nothing any more; that it failed is all there is to say. */
  readonly #failedToStop = (error: unknown): void => {
    this.#set({ kind: "waiting", until: Date.now(), reason: `the connection did not end well: ${describe(error)}` });
  };

  async #keepCaughtUp(): Promise<void> {
    let failures = 0;
    while (!this.#isOver) {
      const warning = this.#warning;
      try {
        this.onCaughtUp(await this.cursor.catchUp(this.#read, this.log));
        failures = 0;
        this.#polling = true;
        // What was wrong before has been made good; what came meanwhile has not.
        if (this.#warning === warning) this.#warning = undefined;
      } catch (error) {
        if (this.#isOver) break;
        failures += 1;
        this.#polling = false;
        this.#warning = `catching up failed: ${describe(error)}`;
      }
      this.onStatus();
      await this.#catchUp.sleep(this.#untilCatchUp(failures));
    }
  }

  #untilCatchUp(failures: number): number {
    if (failures > 0) return retryDelay(failures, CONNECTION_RETRY);
    return this.#push.kind === "live" ? SAFETY_NET_MS : retryDelay(1, FALLBACK);
  }
}
