/** `fetch` with a deadline, answers as JSON, and failures as {@link RequestError}. */
import { describe, parseProblem, RequestError } from "./problem.ts";

/** How long an answer may take. A write to a region that fails over to another is slow, but not slower than this. */
export const DEADLINE_MS = 20_000;

export interface JsonRequest {
  method?: "GET" | "POST" | "PUT";
  body?: unknown;
  signal?: AbortSignal;
  deadlineMs?: number;
}

/**
 * Sends a request and returns the JSON of the answer.
 *
 * @throws {RequestError} for every answer but 2xx, and for no answer (status 0).
 */
export async function requestJson(url: string, request: JsonRequest = {}): Promise<unknown> {
  const { method = "GET", body, signal, deadlineMs = DEADLINE_MS } = request;
  const deadline = AbortSignal.timeout(deadlineMs);
  const init: RequestInit = {
    method,
    cache: "no-store",
    signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
  };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, init);
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (deadline.aborted)
      throw new RequestError(0, "No answer", `${origin(url)} did not answer in ${deadlineMs / 1000} s`);
    throw new RequestError(0, "No answer", `${origin(url)} cannot be reached (${describe(error)})`);
  }
  if (!response.ok) throw parseProblem(response.status, response.statusText, text);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RequestError(response.status, "Not JSON", `${origin(url)} answered ${describe(error)}`);
  }
}

function origin(url: string): string {
  return new URL(url, globalThis.location?.href).origin;
}
