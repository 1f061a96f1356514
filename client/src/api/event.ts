/** The events of the system, as every region hands them out. */
import { isRecord } from "./problem.ts";

/** An accepted event. */
export interface GeoEvent {
  readonly id: string;
  readonly deviceId: string;
  /** Region that accepted it. */
  readonly region: string;
  readonly value: number;
  /** When it was accepted: RFC 3339, UTC, milliseconds. */
  readonly time: string;
}

/** @throws {TypeError} when a field is missing or of another type. */
export function parseEvent(value: unknown): GeoEvent {
  if (
    !isRecord(value) ||
    typeof value.id !== "string" ||
    typeof value.deviceId !== "string" ||
    typeof value.region !== "string" ||
    typeof value.value !== "number" ||
    typeof value.time !== "string"
  ) {
    throw new TypeError(`not an event: ${JSON.stringify(value)?.slice(0, 200)}`);
  }
  const { id, deviceId, region, time } = value;
  return { id, deviceId, region, value: value.value, time };
}

/** @throws {TypeError} when it is not an array of events. */
export function parseEvents(value: unknown): GeoEvent[] {
  if (!Array.isArray(value)) throw new TypeError("not an array of events");
  return value.map(parseEvent);
}
