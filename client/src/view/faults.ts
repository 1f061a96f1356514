/** The fault panel: the regions as they are, and what can be broken and healed. Only with the control API. */
import { html, nothing, type TemplateResult } from "lit-html";
import { type CloudState, MAX_LAG_MS, type RegionState } from "../api/control.ts";
import type { App } from "../app.ts";
import { count, counted, regionClass } from "./format.ts";
import { linkTable } from "./links.ts";
import { MAX_LABELLED, map } from "./map.ts";

export function faultPanel(app: App, cloud: CloudState): TemplateResult {
  const cut = cloud.links.filter((link) => link.state === "cut");
  const pending = cloud.links.reduce((sum, link) => sum + link.pending, 0);
  return html`<section class="panel faults ${app.trouble ? "stale" : ""}" aria-labelledby="faults-title">
    <div class="head">
      <h2 id="faults-title">Regions</h2>
      <span class="muted">${app.trouble ? "as last known" : summary(cut.length, pending)}</span>
      <button type="button" class="quiet" data-testid="heal-all" ?disabled=${cut.length === 0} @click=${() => app.setLinks(cut, { state: "open" })}>
        Heal all
      </button>
    </div>
    ${app.faultError ? html`<p class="result bad" role="alert" data-testid="fault-error">${app.faultError}</p>` : nothing}
    ${cloud.links.length > 0 ? replication(app, cloud) : nothing}
    <div class="cards">${cloud.regions.map((region) => card(app, cloud, region))}</div>
  </section>`;
}

function replication(app: App, cloud: CloudState): TemplateResult {
  const labelled = cloud.regions.length <= MAX_LABELLED;
  return html`<div class="sketch">
    ${map(app, cloud)}
    ${labelled ? nothing : linkTable(app, cloud)}
    <p class="muted small">Click ${labelled ? "the lag on an arrow" : "a lag"} to cut or heal that direction.</p>
    ${lagForm(app, cloud)}
  </div>`;
}

function summary(cut: number, pending: number): string {
  const links = cut === 0 ? "" : `${cut} ${cut === 1 ? "link" : "links"} cut, `;
  return pending === 0 ? `${links}all agree` : `${links}${count(pending)} pending`;
}

function card(app: App, cloud: CloudState, region: RegionState): TemplateResult {
  const { name, functions, cosmos, signalr } = region;
  const links = cloud.links.filter((link) => link.from === name || link.to === name);
  const isolated = links.length > 0 && links.every((link) => link.state === "cut");
  const busy = app.pendingFaults.has(`region/${name}`);
  const running = functions?.state === "running";
  const online = cosmos.state === "online";
  return html`<article class="card ${regionClass(app.regions, name)}" data-testid="region-card-${name}" aria-label=${name}>
    <div class="title">
      <h3>${name}</h3>
      ${isolated ? html`<span class="pill down">cut off</span>` : nothing}
      ${
        links.length > 0
          ? html`<button type="button" class="quiet ${isolated ? "" : "danger"}" data-testid="cut-${name}" aria-pressed=${isolated ? "true" : "false"}
              @click=${() => app.setLinks(links, { state: isolated ? "open" : "cut" })}>
              ${isolated ? "Reconnect" : "Cut off"}<span class="unseen"> ${name}</span>
            </button>`
          : nothing
      }
    </div>
    <dl>
      <div>
        <dt>Functions</dt>
        ${
          functions
            ? html`<dd>
                  <span class="pill ${running ? "up" : functions.state === "starting" ? "busy" : "down"}" data-testid="functions-state-${name}">${functions.state}</span>
                  <span class="muted">${counted(functions.invocations, "run", "runs")}${functions.failures > 0 ? `, ${count(functions.failures)} failed` : ""}</span>
                </dd>
                <dd class="act"><button type="button" class="quiet" data-testid="functions-${name}" ?disabled=${busy || functions.state === "starting"}
                  @click=${() => app.setRegion(name, { functions: running ? "stopped" : "running" })}>
                  ${running ? "Stop" : "Start"}<span class="unseen"> the functions of ${name}</span>
                </button></dd>`
            : html`<dd class="muted">not run here</dd>`
        }
      </div>
      <div>
        <dt>Cosmos DB</dt>
        <dd>
          <span class="pill ${online ? "up" : "down"}" data-testid="cosmos-state-${name}">${cosmos.state}</span>
          <span class="muted">${counted(cosmos.events, "event", "events")}</span>
        </dd>
        <dd class="act"><button type="button" class="quiet" data-testid="cosmos-${name}" ?disabled=${busy} @click=${() => app.setRegion(name, { cosmos: online ? "offline" : "online" })}>
          ${online ? "Take offline" : "Bring online"}<span class="unseen"> Cosmos DB of ${name}</span>
        </button></dd>
      </div>
      <div>
        <dt>Materialized</dt>
        <dd class="muted">${counted(cosmos.materialized, "maximum", "maxima")} of devices</dd>
      </div>
      <div>
        <dt>SignalR</dt>
        <dd class="muted">${count(signalr.connections)} connected, ${counted(signalr.messages, "message", "messages")}</dd>
      </div>
    </dl>
  </article>`;
}

function lagForm(app: App, cloud: CloudState): TemplateResult {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const chosen = String(data.get("link"));
    const links = chosen === "" ? cloud.links : cloud.links.filter((_, i) => String(i) === chosen);
    void app.setLinks(links, { lagMs: Number(data.get("lag")) });
  };
  return html`<form class="lag" @submit=${submit}>
    <label for="lag-link">Lag</label>
    <select id="lag-link" name="link" data-testid="lag-link">
      <option value="">all links</option>
      ${cloud.links.map((link, i) => html`<option value=${i}>${link.from} → ${link.to}</option>`)}
    </select>
    <input name="lag" type="number" data-testid="lag-input" aria-label="Lag in milliseconds" min="0" max=${MAX_LAG_MS} step="1" value="80" required />
    <span>ms</span>
    <button type="submit" class="quiet" data-testid="lag-submit">Set</button>
  </form>`;
}
