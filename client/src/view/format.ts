/** Numbers, times and colours as the page shows them. */

const whole = new Intl.NumberFormat("en");
const timeOfDay = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const value = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });

export function count(n: number): string {
  return whole.format(n);
}

/** `1 event`, `2 events` */
export function counted(n: number, one: string, many: string): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function measurement(n: number): string {
  return Math.abs(n) >= 1e15 || (n !== 0 && Math.abs(n) < 1e-6) ? String(n) : value.format(n);
}

/** `80 ms`, `1.2 s`, `3 min`: never more digits than matter. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** Time of day of an RFC 3339 time, in the person's time zone. */
export function clock(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  return timeOfDay.format(date);
}

/** How long after its time an event arrived; clocks that disagree never give less than nothing. */
export function latency(time: string, at: number): string {
  const sent = Date.parse(time);
  return Number.isNaN(sent) ? "" : duration(Math.max(0, at - sent));
}

/** Colours there are for regions; with more regions they repeat. */
const COLOURS = 8;

/** Class that gives a region's colour as `--region`. */
export function regionClass(regions: readonly { name: string }[], name: string): string {
  const index = regions.findIndex((region) => region.name === name);
  return `region-${(index < 0 ? hash(name) : index) % COLOURS}`;
}

/** The same number for the same text: a region that is not in the list keeps its colour. */
function hash(text: string): number {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 65_521;
  return sum;
}
