/** The form that reads what is materialized of a device. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { App } from "../app.ts";
import { clock, measurement } from "./format.ts";
import { problem, regionOptions, regionTag } from "./parts.ts";

export function readPanel(app: App): TemplateResult {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    void app.readDevice(String(data.get("region") ?? ""), String(data.get("deviceId") ?? "").trim());
  };
  const busy = app.read.kind === "busy";
  return html`<section class="panel" aria-labelledby="read-title">
    <h2 id="read-title">Read a device</h2>
    <form class="fields" novalidate @submit=${submit}>
      <div class="field wide">
        <label for="r-region">Region</label>
        <select id="r-region" name="region" data-testid="read-region">
          ${regionOptions(app.regions, app.region ?? "")}
        </select>
      </div>
      <div class="field">
        <label for="r-device">Device</label>
        <input id="r-device" name="deviceId" data-testid="read-device" value="thermometer-1" autocomplete="off" spellcheck="false" />
      </div>
      <button type="submit" data-testid="read-submit" ?disabled=${busy}>${busy ? "Reading …" : "Read"}</button>
    </form>
    <div data-testid="read-result" aria-live="polite">${result(app)}</div>
  </section>`;
}

function result(app: App): TemplateResult | typeof nothing {
  if (app.read.kind === "failed") return problem(app.read.error);
  if (app.read.kind === "none") {
    return html`<p class="muted small">What the region has materialized of a device: the maximum of each batch.</p>`;
  }
  if (app.read.kind !== "done") return nothing;
  const { deviceId, region, rows } = app.read.value;
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Maxima of ${deviceId}">
    <table>
      <caption>
        Newest maxima of <b>${deviceId}</b>, read in ${region}
      </caption>
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Origin</th>
          <th scope="col" class="number">Maximum</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) =>
            html`<tr data-event-id=${row.id}>
              <td><time datetime=${row.time} title=${row.time}>${clock(row.time)}</time></td>
              <td>${regionTag(app.regions, row.region)}</td>
              <td class="number">${measurement(row.maxValue)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
