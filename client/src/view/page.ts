/** The whole page, top to bottom. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { App } from "../app.ts";
import { consolePanel } from "./console.ts";
import { faultPanel } from "./faults.ts";
import { header } from "./header.ts";
import { readPanel } from "./read.ts";
import { simulatePanel } from "./simulate.ts";
import { writePanel } from "./write.ts";

export function page(app: App): TemplateResult {
  return html`
    <a class="skip" href="#console">Skip to the live console</a>
    ${header(app)}
    <main>
      ${app.trouble ? html`<p class="banner bad" role="alert" data-testid="trouble">${app.trouble}</p>` : nothing}
      ${app.note ? notice(app, app.note) : nothing}
      ${app.regions.length === 0 ? empty(app) : panels(app)}
    </main>
  `;
}

/** The order is the reading order everywhere: what happens, where it happens, and what a person can do. */
function panels(app: App): TemplateResult {
  return html`<div class="panels ${app.cloud ? "with-faults" : ""}">
    ${consolePanel(app)} ${app.cloud ? faultPanel(app, app.cloud) : nothing}
    <div class="tools">${writePanel(app)} ${simulatePanel(app)} ${readPanel(app)}</div>
  </div>`;
}

function notice(app: App, text: string): TemplateResult {
  const dismiss = () => {
    app.note = undefined;
    app.changed();
  };
  return html`<p class="banner" role="status">
    <span>${text}</span><button class="quiet" type="button" @click=${dismiss}>Dismiss</button>
  </p>`;
}

function empty(app: App): TemplateResult {
  return html`<section class="panel waiting" aria-busy="true">
    <i class="spinner" aria-hidden="true"></i>
    <p role="status">${app.trouble ? "Trying again …" : "Looking for the regions …"}</p>
  </section>`;
}
