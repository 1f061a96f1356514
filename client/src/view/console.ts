/** The live console: what devices report, newest on top. */
import { html, nothing, type TemplateResult } from "lit-html";
import { repeat } from "lit-html/directives/repeat.js";
import type { App } from "../app.ts";
import { type Entry, LIMITS } from "../feed/eventLog.ts";
import { clock, count, latency, measurement, regionClass } from "./format.ts";

/** Time between two announcements to a screen reader: every event by itself would be noise. */
const ANNOUNCE_MS = 5_000;

const announced = { total: 0, at: 0, text: "" };

function announcement(total: number): string {
  const now = Date.now();
  if (total > announced.total && now - announced.at >= ANNOUNCE_MS) {
    const fresh = total - announced.total;
    announced.text = `${fresh} new ${fresh === 1 ? "event" : "events"}`;
    announced.total = total;
    announced.at = now;
  }
  return announced.text;
}

export function consolePanel(app: App): TemplateResult {
  const { entries, total } = app.log;
  const clear = () => {
    app.log.clear();
    app.changed();
  };
  return html`<section class="panel console" id="console" aria-labelledby="console-title">
    <div class="head">
      <h2 id="console-title">Live console</h2>
      <span class="muted"><b data-testid="seen-total">${count(total)}</b> ${total === 1 ? "event" : "events"} seen</span>
      <button type="button" class="quiet" ?disabled=${entries.length === 0} @click=${clear}>Clear</button>
    </div>
    ${untracked(app)}
    <p class="unseen" aria-live="polite">${announcement(total)}</p>
    <ol data-testid="console" tabindex="0" aria-label="Events, newest first">
      ${repeat(
        entries,
        (entry) => entry.event.id,
        (entry) => row(app, entry),
      )}
      <li class="origin muted">
        ${
          entries.length < total
            ? `Older events are not shown: the console keeps the newest ${count(LIMITS.shown)}.`
            : "Live from here: the page shows what happens from the moment it was opened."
        }
      </li>
    </ol>
  </section>`;
}

/** Says in which regions the page holds no place in the feed, so that nobody trusts it with more than it can do. */
function untracked(app: App): TemplateResult | typeof nothing {
  if (app.untracked.size === 0) return nothing;
  const why = [...app.untracked].map(([name, reason]) => `${name}: ${reason}`).join("; ");
  const names = [...app.untracked.keys()].join(", ");
  return html`<p class="small warn" role="status" title=${why}>
    No place in the feed of ${names} yet: events from before it answers are not caught up there.
  </p>`;
}

function row(app: App, { event, via, at }: Entry): TemplateResult {
  return html`<li class="event ${regionClass(app.regions, event.region)}" data-testid="event" data-event-id=${event.id}>
    <time datetime=${event.time} title=${event.time}>${clock(event.time)}</time>
    <span class="text" title=${`id ${event.id}`}
      ><b>${event.deviceId}</b> in <span class="tag">${event.region}</span> reports <b>${measurement(event.value)}</b></span
    >
    <span class="latency" title=${via === "push" ? "from acceptance to this screen, by push" : "read afterwards, by catch-up"}
      >${via === "catch-up" ? html`<em>caught up</em> ` : nothing}${latency(event.time, at)}</span
    >
  </li>`;
}
