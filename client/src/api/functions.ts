/** The HTTP functions of one region, but for `negotiate`, which SignalR's client calls itself. */
import { type GeoEvent, parseEvent, parseEvents } from "./event.ts";
import { requestJson } from "./http.ts";
import { isRecord, RequestError } from "./problem.ts";

/** What a device sends. The function gives an `id` where there is none. */
export interface Draft {
  id?: string;
  deviceId: string;
  /** A number; whatever else a person types is sent as it is, and refused by the function. */
  value: number | string;
}

/** One page of `GET /api/changes`. */
export interface Changes {
  readonly events: readonly GeoEvent[];
  /** Where the next call goes on; valid in this region only. */
  readonly continuation: string;
  readonly hasMore: boolean;
}

/** A materialized maximum, a row of `GET /api/ReadAPI/{deviceId}`. */
export interface Maximum {
  readonly id: string;
  readonly maxValue: number;
  readonly region: string;
  readonly time: string;
}

/** Events that one page of `changes` may bring; the most that the function allows. */
export const CHANGES_PAGE = 1000;

/** `POST /api/WriteEvent` with one event; returns it as it was stored. */
export async function writeEvent(functions: string, draft: Draft, signal?: AbortSignal): Promise<GeoEvent> {
  const answer = await requestJson(`${functions}/api/WriteEvent`, {
    method: "POST",
    body: draft,
    ...(signal && { signal }),
  });
  return understood("WriteEvent", () => parseEvent(answer));
}

/** `GET /api/ReadAPI/{deviceId}`, newest first. */
export async function readDevice(functions: string, deviceId: string): Promise<Maximum[]> {
  const answer = await requestJson(`${functions}/api/ReadAPI/${encodeURIComponent(deviceId)}`);
  return understood("ReadAPI", () => parseMaxima(answer));
}

/** `GET /api/changes`; `now` as continuation asks for the token of the present only. */
export async function readChanges(functions: string, continuation: string, signal?: AbortSignal): Promise<Changes> {
  const query = new URLSearchParams({ continuation, limit: String(CHANGES_PAGE) });
  const answer = await requestJson(`${functions}/api/changes?${query}`, signal && { signal });
  return understood("changes", () => parseChanges(answer));
}

export function parseChanges(answer: unknown): Changes {
  if (!isRecord(answer) || typeof answer.continuation !== "string" || typeof answer.hasMore !== "boolean") {
    throw new TypeError("no continuation or hasMore in the answer");
  }
  return { events: parseEvents(answer.events), continuation: answer.continuation, hasMore: answer.hasMore };
}

function parseMaxima(answer: unknown): Maximum[] {
  if (!Array.isArray(answer)) throw new TypeError("not an array");
  return answer.map((row: unknown) => {
    if (
      !isRecord(row) ||
      typeof row.id !== "string" ||
      typeof row.maxValue !== "number" ||
      typeof row.region !== "string" ||
      typeof row.time !== "string"
    ) {
      throw new TypeError("a row without id, maxValue, region or time");
    }
    return { id: row.id, maxValue: row.maxValue, region: row.region, time: row.time };
  });
}

/** Turns an answer of an unexpected shape into an error that names the function. */
function understood<T>(name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new RequestError(
      200,
      `${name} answered something else`,
      error instanceof Error ? error.message : String(error),
    );
  }
}
