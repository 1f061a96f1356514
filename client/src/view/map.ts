/**
 * The regions and the replication between them, as a picture: regions on a circle, one arc per direction. The label of
 * an arc is a button that cuts or heals it. With many regions there is no room for labels, and `links.ts` has the buttons.
 */
import { html, nothing, type SVGTemplateResult, svg, type TemplateResult } from "lit-html";
import type { CloudState, LinkState } from "../api/control.ts";
import { type App, linkKey } from "../app.ts";
import { count, duration, regionClass } from "./format.ts";

const WIDTH = 420;
/** Regions of which the picture has room for the labels of all arcs. */
export const MAX_LABELLED = 3;

const NODE = 38;
/** How far an arc bends away from the straight line, in its length. */
const BEND = 0.16;

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Two regions stand side by side. */
function height(n: number): number {
  return n <= 2 ? 150 : 292;
}

/** Places of `n` regions: on an ellipse, the first on top; two side by side. */
export function places(n: number): Point[] {
  const centre = { x: WIDTH / 2, y: height(n) / 2 };
  const start = n === 2 ? Math.PI : -Math.PI / 2;
  // A triangle stands lower on its circle than it is high.
  const drop = n === 3 ? 30 : 0;
  return Array.from({ length: n }, (_, i) => {
    const angle = start + (2 * Math.PI * i) / n;
    const radius = n === 1 ? 0 : 1;
    return {
      x: centre.x + radius * (WIDTH / 2 - 58) * Math.cos(angle),
      y: centre.y + drop + radius * (height(n) / 2 - (n === 3 ? 14 : 50)) * Math.sin(angle),
    };
  });
}

/** An arc from one region to another, and the middle of it. */
export function arc(from: Point, to: Point): { path: string; middle: Point } {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = Math.hypot(dx, dy) || 1;
  // Always bent to the same hand, so that the two directions do not lie on each other.
  const control = { x: (from.x + to.x) / 2 + dy * BEND, y: (from.y + to.y) / 2 - dx * BEND };
  const edge = (end: Point, gap: number) => {
    const away = Math.hypot(control.x - end.x, control.y - end.y) || 1;
    return { x: end.x + ((control.x - end.x) / away) * gap, y: end.y + ((control.y - end.y) / away) * gap };
  };
  const gap = Math.min(NODE + 6, length / 3);
  const a = edge(from, gap);
  const b = edge(to, gap + 5);
  const round = (value: number) => value.toFixed(1);
  return {
    path: `M${round(a.x)} ${round(a.y)}Q${round(control.x)} ${round(control.y)} ${round(b.x)} ${round(b.y)}`,
    middle: { x: (a.x + 2 * control.x + b.x) / 4, y: (a.y + 2 * control.y + b.y) / 4 },
  };
}

export function map(app: App, cloud: CloudState): TemplateResult {
  const points = places(cloud.regions.length);
  const at = new Map(cloud.regions.map((region, i) => [region.name, points[i] as Point]));
  const links = cloud.links.flatMap((link) => {
    const from = at.get(link.from);
    const to = at.get(link.to);
    return from && to ? [{ link, ...arc(from, to) }] : [];
  });
  return html`<svg class="map" viewBox="0 0 ${WIDTH} ${height(cloud.regions.length)}" role="group" aria-label="Replication between the regions">
    <defs>
      <marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
        <path class="arrow" d="M0 0.5 7 4 0 7.5z" />
      </marker>
    </defs>
    ${links.map(({ link, path }) => svg`<path class="arc ${link.state} ${link.pending > 0 ? "busy" : ""}" d=${path} marker-end="url(#head)" />`)}
    ${cloud.regions.map((region, i) => node(app, region, points[i] as Point))}
    ${cloud.regions.length <= MAX_LABELLED ? links.map(({ link, middle }) => chip(app, link, middle)) : nothing}
  </svg>`;
}

function node(app: App, region: CloudState["regions"][number], { x, y }: Point): SVGTemplateResult {
  const up = region.cosmos.state === "online" && (!region.functions || region.functions.state === "running");
  const watched = region.name === app.region;
  const words = region.name.split(" ");
  const half = Math.ceil(words.length / 2);
  const lines = words.length > 1 ? [words.slice(0, half).join(" "), words.slice(half).join(" ")] : words;
  return svg`<g class="node ${regionClass(app.regions, region.name)} ${up ? "" : "impaired"}" transform="translate(${x} ${y})">
    ${watched ? svg`<circle class="halo" r=${NODE + 5} />` : nothing}
    <circle r=${NODE} />
    ${lines.map((line, i) => svg`<text y=${(i - (lines.length - 1) / 2) * 15}>${line}</text>`)}
  </g>`;
}

function chip(app: App, link: LinkState, { x, y }: Point): SVGTemplateResult {
  const cut = link.state === "cut";
  const busy = app.pendingFaults.has(linkKey(link.from, link.to));
  const toggle = () => {
    if (!busy) void app.setLinks([link], { state: cut ? "open" : "cut" });
  };
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle();
  };
  const state = cut ? "cut" : duration(link.lagMs);
  const label = link.pending > 0 ? `${state} · ${count(link.pending)}` : state;
  const width = Math.max(56, label.length * 7 + 18);
  const name = linkName(link);
  return svg`<g class="chip ${link.state} ${link.pending > 0 ? "busy" : ""}" role="button" tabindex="0"
      aria-pressed=${cut ? "true" : "false"} aria-disabled=${busy ? "true" : "false"} aria-label="Cut ${name}"
      data-testid="link-${link.from}-${link.to}" data-state=${link.state} data-pending=${link.pending}
      transform="translate(${x.toFixed(1)} ${y.toFixed(1)})" @click=${toggle} @keydown=${key}>
    <title>${name}. Click to ${cut ? "heal" : "cut"}.</title>
    <rect x=${-width / 2} y="-13" width=${width} height="26" rx="13" />
    <text>${label}</text>
  </g>`;
}

/** A link and how it is, in words. */
export function linkName(link: LinkState): string {
  const state = link.state === "cut" ? "cut" : `open, lag ${duration(link.lagMs)}`;
  return `${link.from} to ${link.to}: ${state}, ${count(link.pending)} pending`;
}
