/** Which region is watched, and whether its feed flows. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { App } from "../app.ts";
import { regionClass } from "./format.ts";
import { regionOptions } from "./parts.ts";

export function header(app: App): TemplateResult {
  const choose = (event: Event) => app.watch((event.target as HTMLSelectElement).value);
  return html`<header>
    <div class="brand">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <path d="M16 8 7 23h18z" />
        <circle class="region-0" cx="16" cy="7" r="5" /><circle class="region-1" cx="7" cy="24" r="5" />
        <circle class="region-2" cx="25" cy="24" r="5" />
      </svg>
      <h1>geo-events</h1>
      ${app.cloud ? html`<span class="muted version">${app.cloud.version}</span>` : nothing}
    </div>
    ${
      app.region
        ? html`<div class="watching ${regionClass(app.regions, app.region)}">
            <label for="region">Watching</label>
            <select id="region" data-testid="region-select" .value=${app.region} @change=${choose}>
              ${regionOptions(app.regions, app.region)}
            </select>
            ${status(app)}
          </div>`
        : nothing
    }
  </header>`;
}

function status(app: App): TemplateResult {
  const { mark, label, detail } = describeStatus(app);
  const retry = app.feed?.status.kind === "waiting";
  return html`<div class="status ${mark}">
    <span class="pill ${PILLS[mark]}" role="status" data-testid="connection-status" data-state=${mark}
      ><i class="dot" aria-hidden="true"></i>${label}</span
    >
    ${detail ? html`<span class="detail" title=${detail}>${detail}</span>` : nothing}
    ${
      retry
        ? html`<button type="button" class="quiet" @click=${() => app.feed?.retryNow()}>Try now</button>
            ${alternatives(app)}`
        : nothing
    }
  </div>`;
}

/** What browsers say about a server that does not answer. */
const UNREACHABLE = /Failed to fetch|NetworkError|Load failed/;

type Mark = "live" | "busy" | "down";

/** How the state of a feed looks. */
const PILLS: Record<Mark, string> = { live: "up", busy: "busy", down: "down" };

/** Events arrive, but a little later than by push. */
const POLLING = {
  mark: "busy",
  label: "polling",
  detail: "no push: new events are fetched every two seconds",
} as const;

/** What stands beside the dot, and how the dot looks. */
export function describeStatus(app: App): { mark: Mark; label: string; detail: string } {
  const known = app.cloud?.regions.find((region) => region.name === app.region)?.functions;
  if (!app.feed) return { mark: "down", label: "No functions", detail: "This region runs Cosmos DB and SignalR only" };
  const status = app.feed.status;
  switch (status.kind) {
    case "connecting":
      return status.polling ? POLLING : { mark: "busy", label: "Connecting", detail: "" };
    case "live":
      return { mark: "live", label: "Live", detail: status.warning ?? "" };
    case "waiting": {
      if (status.polling) return { ...POLLING, detail: `${POLLING.detail} (${status.reason})` };
      if (known && known.state !== "running") {
        return {
          mark: "down",
          label: "Reconnecting",
          detail: `The functions of ${app.region} are ${known.state}`,
        };
      }
      return {
        mark: "down",
        label: "Reconnecting",
        detail: UNREACHABLE.test(status.reason) ? `${app.region} cannot be reached` : status.reason,
      };
    }
    case "stopped":
      return { mark: "busy", label: "Switching", detail: "" };
  }
}

/** The next region that can be watched instead. */
function alternatives(app: App): TemplateResult | typeof nothing {
  const other = app.writable().find((region) => region.name !== app.region);
  if (!other) return nothing;
  return html`<button type="button" class="quiet" data-testid="switch-region" @click=${() => app.watch(other.name)}>
    Switch to ${other.name}
  </button>`;
}
