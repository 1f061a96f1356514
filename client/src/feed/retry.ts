/** How long to wait before the next attempt: quick at first, then patient, never in step with other browsers. */

export interface RetryOptions {
  /** Longest wait after the first failure, in milliseconds. */
  readonly baseMs: number;
  /** Longest wait at all, in milliseconds. */
  readonly capMs: number;
}

/** For the connection to a region: a region that comes back is noticed within this cap. */
export const CONNECTION_RETRY: RetryOptions = { baseMs: 500, capMs: 10_000 };

/** For reading `changes` while nothing is pushed: every one to two seconds. */
export const FALLBACK: RetryOptions = { baseMs: 2_000, capMs: 2_000 };

/** For polling the control API. */
export const POLL_RETRY: RetryOptions = { baseMs: 1_000, capMs: 10_000 };

/**
 * Wait before attempt number `failures + 1`, in milliseconds. It doubles up to the cap; half of it is random, so that
 * the browsers that a region lost at one moment do not come back at one moment. There is no last attempt.
 */
export function retryDelay(failures: number, options: RetryOptions, random: () => number = Math.random): number {
  if (failures <= 0) return 0;
  const full = Math.min(options.capMs, options.baseMs * 2 ** (failures - 1));
  return Math.round(full / 2 + (full / 2) * random());
}

/** Resolves after `ms`, or at once when `signal` aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** A wait that can be ended from outside. Rung before the wait begins, it ends that wait at once: no ring is lost. */
export class Alarm {
  #bell = new AbortController();

  ring(): void {
    this.#bell.abort();
  }

  async sleep(ms: number): Promise<void> {
    await pause(ms, this.#bell.signal);
    this.#bell = new AbortController();
  }
}
