/**
 * Reads everything after a region's token into the log. The token moves only with what was read, so an attempt that
 * fails half way loses nothing: the next one goes on from there.
 */
import type { Changes } from "../api/functions.ts";
import { RequestError } from "../api/problem.ts";
import type { EventLog } from "./eventLog.ts";

/** Reads one page of changes; `now` asks for the token of the present. */
export type ReadChanges = (continuation: string) => Promise<Changes>;

/** What a catch-up came to. */
export type CaughtUp =
  /** Everything up to now has been read. */
  | "complete"
  /** There was no token: the page is live from this moment. */
  | "from-now"
  /** The region does not know the token any more (its data is new): live from this moment, earlier events are unknown. */
  | "restarted";

/** Position in one region's feed. */
export class Cursor {
  #continuation: string | undefined;

  /** Whether a place in the feed is held: without one, nothing before the first catch-up is seen. */
  get isHeld(): boolean {
    return this.#continuation !== undefined;
  }

  /** Takes the token of the present unless there is a token already. */
  async hold(read: ReadChanges): Promise<void> {
    if (this.#continuation !== undefined) return;
    const { continuation } = await read("now");
    // Of two answers the first stays: the later one would skip what lies between them.
    this.#continuation ??= continuation;
  }

  /** @throws {RequestError} when the region does not answer; what was read until then is in the log. */
  async catchUp(read: ReadChanges, log: EventLog): Promise<CaughtUp> {
    if (this.#continuation === undefined) {
      await this.hold(read);
      return "from-now";
    }
    log.beginCatchUp();
    try {
      let more = true;
      while (more) {
        const page = await read(this.#continuation);
        log.caughtUp(page.events);
        this.#continuation = page.continuation;
        more = page.hasMore;
      }
      return "complete";
    } catch (error) {
      if (!(error instanceof RequestError) || (error.status !== 400 && error.status !== 410)) throw error;
      this.#continuation = undefined;
      await this.hold(read);
      return "restarted";
    } finally {
      log.endCatchUp();
    }
  }
}
