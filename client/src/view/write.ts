/** The form that writes one event. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { Draft } from "../api/functions.ts";
import type { App } from "../app.ts";
import { measurement } from "./format.ts";
import { problem, regionOptions, regionTag } from "./parts.ts";

/** Fields of the form whose messages stand beside them. */
const FIELDS = ["deviceId", "value", "id"] as const;
type Field = (typeof FIELDS)[number];

/**
 * What to send for what was typed. Nothing is checked here, so that the one who decides, the function, is also the one
 * who explains: a text that is no number goes out as it is.
 */
export function draftOf(deviceId: string, value: string, id: string): Draft {
  const trimmed = value.trim();
  const number = trimmed === "" ? Number.NaN : Number(trimmed);
  const draft: Draft = { deviceId: deviceId.trim(), value: Number.isFinite(number) ? number : trimmed };
  if (id.trim() !== "") draft.id = id.trim();
  return draft;
}

export function writePanel(app: App): TemplateResult {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const text = (name: string) => String(data.get(name) ?? "");
    void app.writeEvent(text("region"), draftOf(text("deviceId"), text("value"), text("id")));
  };
  const busy = app.write.kind === "busy";
  return html`<section class="panel" aria-labelledby="write-title">
    <h2 id="write-title">Write an event</h2>
    <form data-testid="write-form" novalidate @submit=${submit}>
      <div class="fields">
        <div class="field wide">
          <label for="w-region">Region</label>
          <select id="w-region" name="region" data-testid="write-region">
            ${regionOptions(app.regions, app.region ?? "")}
          </select>
        </div>
        ${field(app, "deviceId", "Device", html`<input id="w-deviceId" name="deviceId" data-testid="write-device" value="thermometer-1" autocomplete="off" spellcheck="false" aria-describedby="w-deviceId-error" aria-invalid=${invalid(app, "deviceId")} />`)}
        ${field(app, "value", "Value", html`<input id="w-value" name="value" data-testid="write-value" value="21.5" inputmode="decimal" autocomplete="off" aria-describedby="w-value-error" aria-invalid=${invalid(app, "value")} />`)}
        ${field(app, "id", "Id (optional)", html`<input id="w-id" name="id" data-testid="write-id" placeholder="automatic" autocomplete="off" spellcheck="false" aria-describedby="w-id-error" aria-invalid=${invalid(app, "id")} />`)}
        <button type="submit" data-testid="write-submit" ?disabled=${busy}>${busy ? "Writing …" : "Write event"}</button>
      </div>
    </form>
    <div data-testid="write-result" aria-live="polite">${result(app)}</div>
  </section>`;
}

function messages(app: App, name: Field): string[] {
  return app.write.kind === "failed" ? app.write.error.messagesFor(name) : [];
}

function invalid(app: App, name: Field): "true" | "false" {
  return messages(app, name).length > 0 ? "true" : "false";
}

function field(app: App, name: Field, label: string, input: TemplateResult): TemplateResult {
  return html`<div class="field">
    <label for="w-${name}">${label}</label>
    ${input}
    <p class="error" id="w-${name}-error">${messages(app, name).join(" ")}</p>
  </div>`;
}

function result(app: App): TemplateResult | typeof nothing {
  switch (app.write.kind) {
    case "done": {
      const { deviceId, value, region, id } = app.write.value;
      return html`<div class="result good">
        <strong>201 Created</strong>
        <p>${deviceId} reports ${measurement(value)} in ${regionTag(app.regions, region)}</p>
        <p class="muted mono" data-testid="write-id-result">${id}</p>
      </div>`;
    }
    case "failed":
      return problem(app.write.error, FIELDS);
    default:
      return nothing;
  }
}
