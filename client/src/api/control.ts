/**
 * Where the regions are, and what a person may break: the control API of `geo-events up`, or, for a deployed page, the
 * list `regions.json` beside it.
 */
import { requestJson } from "./http.ts";
import { isRecord, RequestError } from "./problem.ts";

const FUNCTIONS_STATES = ["running", "starting", "stopped", "failed"] as const;
export type FunctionsState = (typeof FUNCTIONS_STATES)[number];

export interface RegionState {
  readonly name: string;
  /** `null` when only the services run (`--services-only`). */
  readonly functions: { url: string; state: FunctionsState; invocations: number; failures: number } | null;
  readonly cosmos: { url: string; state: "online" | "offline"; events: number; materialized: number };
  readonly signalr: { url: string; connections: number; messages: number };
}

/** Replication from one region to another. */
export interface LinkState {
  readonly from: string;
  readonly to: string;
  readonly state: "open" | "cut";
  readonly lagMs: number;
  /** Changes accepted at `from` and not yet applied at `to`. */
  readonly pending: number;
}

/** `GET /control/state` */
export interface CloudState {
  readonly version: string;
  readonly account: string;
  readonly regions: readonly RegionState[];
  readonly links: readonly LinkState[];
}

/** A region as far as a page without control API knows it. */
export interface RegionAddress {
  readonly name: string;
  /** Origin of its functions, without a slash at the end; `null` when it has none. */
  readonly functions: string | null;
}

export interface RegionChange {
  cosmos?: "online" | "offline";
  functions?: "running" | "stopped";
}

export interface LinkChange {
  state?: "open" | "cut";
  lagMs?: number;
}

/** Longest lag that the control API takes, in milliseconds. */
export const MAX_LAG_MS = 600_000;

/** How long `GET /control/state` may take: it reads counters only. */
const STATE_DEADLINE_MS = 5_000;

/** Starting or stopping a host may take this long. */
const CHANGE_DEADLINE_MS = 60_000;

export async function readState(): Promise<CloudState> {
  return parseState(await requestJson("/control/state", { deadlineMs: STATE_DEADLINE_MS }));
}

export async function changeRegion(name: string, change: RegionChange): Promise<void> {
  return put(`/control/regions/${encodeURIComponent(name)}`, change);
}

export async function changeLink(from: string, to: string, change: LinkChange): Promise<void> {
  return put(`/control/links/${encodeURIComponent(from)}/${encodeURIComponent(to)}`, change);
}

/** The state in the answer is left alone: a look that begins afterwards cannot be older than it. */
async function put(path: string, body: unknown): Promise<void> {
  await requestJson(path, { method: "PUT", body, deadlineMs: CHANGE_DEADLINE_MS });
}

/** The list of a deployed page: relative, it lies beside the page. */
export async function readRegions(): Promise<RegionAddress[]> {
  return parseRegions(await requestJson("regions.json"));
}

/** @throws {RequestError} naming what is missing. */
export function parseState(json: unknown): CloudState {
  const root = record(json, "state");
  return {
    version: text(root.version, "version"),
    account: text(root.account, "account"),
    regions: list(root.regions, "regions").map((item, i) => {
      const at = `regions[${i}]`;
      const region = record(item, at);
      const cosmos = record(region.cosmos, `${at}.cosmos`);
      const signalr = record(region.signalr, `${at}.signalr`);
      const functions = region.functions === null ? null : record(region.functions, `${at}.functions`);
      return {
        name: text(region.name, `${at}.name`),
        functions: functions && {
          url: address(functions.url, `${at}.functions.url`),
          state: oneOf(functions.state, FUNCTIONS_STATES, `${at}.functions.state`),
          invocations: count(functions.invocations, `${at}.functions.invocations`),
          failures: count(functions.failures, `${at}.functions.failures`),
        },
        cosmos: {
          url: text(cosmos.url, `${at}.cosmos.url`),
          state: oneOf(cosmos.state, ["online", "offline"] as const, `${at}.cosmos.state`),
          events: count(cosmos.events, `${at}.cosmos.events`),
          materialized: count(cosmos.materialized, `${at}.cosmos.materialized`),
        },
        signalr: {
          url: text(signalr.url, `${at}.signalr.url`),
          connections: count(signalr.connections, `${at}.signalr.connections`),
          messages: count(signalr.messages, `${at}.signalr.messages`),
        },
      };
    }),
    links: list(root.links, "links").map((item, i) => {
      const link = record(item, `links[${i}]`);
      return {
        from: text(link.from, `links[${i}].from`),
        to: text(link.to, `links[${i}].to`),
        state: oneOf(link.state, ["open", "cut"] as const, `links[${i}].state`),
        lagMs: count(link.lagMs, `links[${i}].lagMs`),
        pending: count(link.pending, `links[${i}].pending`),
      };
    }),
  };
}

/** @throws {RequestError} naming what is missing. */
export function parseRegions(json: unknown): RegionAddress[] {
  return list(record(json, "regions.json").regions, "regions").map((item, i) => {
    const region = record(item, `regions[${i}]`);
    const functions = address(region.functions, `regions[${i}].functions`);
    return { name: text(region.name, `regions[${i}].name`), functions };
  });
}

function bad(path: string, expected: string): RequestError {
  return new RequestError(200, "Unexpected answer", `${path} is not ${expected}`);
}

function record(value: unknown, path: string): Record<string, unknown> {
  if (!isRecord(value)) throw bad(path, "an object");
  return value;
}

function list(value: unknown, path: string): unknown[] {
  if (!Array.isArray(value)) throw bad(path, "an array");
  return value;
}

function text(value: unknown, path: string): string {
  if (typeof value !== "string" || value === "") throw bad(path, "a text");
  return value;
}

function address(value: unknown, path: string): string {
  const url = text(value, path);
  if (!/^https?:\/\//.test(url)) throw bad(path, "an http(s) address");
  return url.replace(/\/+$/, "");
}

function count(value: unknown, path: string): number {
  if (typeof value !== "number" || !(value >= 0)) throw bad(path, "a count");
  return value;
}

function oneOf<T extends string>(value: unknown, allowed: readonly T[], path: string): T {
  const found = allowed.find((name) => name === value);
  if (found === undefined) throw bad(path, `one of ${allowed.join(", ")}`);
  return found;
}
