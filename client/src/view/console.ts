/** The live console: what devices report, newest on top. */
import { html, nothing, type TemplateResult } from "lit-html";
import { guard } from "lit-html/directives/guard.js";
import { repeat } from "lit-html/directives/repeat.js";
import type { App } from "../app.ts";
import { type Entry, LIMITS } from "../feed/eventLog.ts";
import { clock, count, latency, measurement, regionClass } from "./format.ts";

/** Time between two announcements to a screen reader: every event by itself would be noise. */
const ANNOUNCE_MS = 5_000;

const announced = { total: 0, at: 0, text: "" };

function announcement(total: number, newest: Entry | undefined): string {
  const now = Date.now();
  if (newest && total > announced.total && now - announced.at >= ANNOUNCE_MS) {
    const fresh = total - announced.total;
    const { deviceId, region, value } = newest.event;
    const sentence = `${deviceId} in ${region} reports ${measurement(value)}`;
    announced.text = fresh === 1 ? sentence : `${fresh} new events, the last: ${sentence}`;
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
  const names = app.regions.map(({ name }) => name).join();
  return html`<section class="panel console" id="console" tabindex="-1" aria-labelledby="console-title">
    <div class="head">
      <h2 id="console-title">Live console</h2>
      <span class="muted"><b data-testid="seen-total">${count(total)}</b> ${total === 1 ? "event" : "events"}</span>
      <button type="button" class="quiet" ?disabled=${entries.length === 0} @click=${clear}>Clear</button>
    </div>
    ${untracked(app)}
    <p class="unseen" aria-live="polite">${announcement(total, entries[0])}</p>
    <ol data-testid="console" tabindex="0" aria-label="Events, newest first">
      ${repeat(
        entries,
        (entry) => entry.event.id,
        // A row never changes, and there are hundreds.
        (entry) => guard([entry, names], () => row(app, entry)),
      )}
      ${total === 0 ? nobody(app) : html`<li class="origin muted">${beginning(entries.length, total)}</li>`}
    </ol>
  </section>`;
}

function beginning(shown: number, total: number): string {
  if (shown === total) return "The page was opened here. What happened before is not shown.";
  if (shown === 0) return "Cleared. What happens from now on appears here.";
  return shown < LIMITS.shown
    ? "Cleared here. Older events are not shown."
    : `The console keeps the newest ${count(LIMITS.shown)} events; older ones are not shown.`;
}

/** Before the first event. */
function nobody(app: App): TemplateResult {
  const live = app.feed?.status.kind === "live";
  return html`<li class="nobody">
    ${live ? nothing : html`<i class="spinner" aria-hidden="true"></i>`}
    <strong>${live ? "Listening" : `Waiting for ${app.region ?? "a region"}`}</strong>
    <p class="muted">
      ${
        live
          ? `What devices report, in whichever region, appears here as soon as ${app.region} has it.`
          : "Events appear here as soon as it answers."
      }
    </p>
    ${
      live && !app.simulator.isRunning
        ? html`<button type="button" class="quiet" @click=${() => app.simulator.start()}>Switch on simulated devices</button>`
        : nothing
    }
  </li>`;
}

/** Says in which regions the page holds no place in the feed, so that nobody trusts it with more than it can do. */
function untracked(app: App): TemplateResult | typeof nothing {
  if (app.untracked.size === 0) return nothing;
  const why = [...app.untracked].map(([name, reason]) => `${name}: ${reason}`).join("; ");
  const names = [...app.untracked.keys()].join(", ");
  return html`<p class="small warn" role="status" title=${why}>
    ${names} has not answered yet: what happens there before it does is not caught up.
  </p>`;
}

function row(app: App, { event, via, at }: Entry): TemplateResult {
  return html`<li class="event ${regionClass(app.regions, event.region)}" data-testid="event" data-event-id=${event.id}>
    <time datetime=${event.time} title=${event.time}>${clock(event.time)}</time>
    <span class="text" title=${`id ${event.id}`}
      ><b>${event.deviceId}</b> in <span class="tag">${event.region}</span> reports <b>${measurement(event.value)}</b></span
    >
    <span class="latency" title=${via === "push" ? "From acceptance to this screen, by push" : "From acceptance to this screen; fetched, not pushed"}
      >${via === "catch-up" ? html`<em>fetched</em> ` : nothing}${latency(event.time, at)}</span
    >
  </li>`;
}
