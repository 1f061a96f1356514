/** Replication between many regions, as a table: from the region of the row to the region of the column. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { CloudState, LinkState } from "../api/control.ts";
import { type App, linkKey } from "../app.ts";
import { count, duration } from "./format.ts";
import { linkName } from "./map.ts";
import { regionTag } from "./parts.ts";

export function linkTable(app: App, cloud: CloudState): TemplateResult {
  const link = (from: string, to: string) => cloud.links.find((link) => link.from === from && link.to === to);
  return html`<div class="scroll links">
    <table>
      <caption class="unseen">Replication from the region of the row to the region of the column</caption>
      <thead>
        <tr>
          <td class="muted small" aria-hidden="true">from ↓ to →</td>
          ${cloud.regions.map(({ name }) => html`<th scope="col">${regionTag(app.regions, name)}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${cloud.regions.map(
          (from) =>
            html`<tr>
              <th scope="row">${regionTag(app.regions, from.name)}</th>
              ${cloud.regions.map((to) => html`<td>${cell(app, link(from.name, to.name))}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function cell(app: App, link: LinkState | undefined): TemplateResult | typeof nothing {
  if (!link) return nothing;
  const cut = link.state === "cut";
  const name = linkName(link);
  return html`<button type="button" class="quiet link ${link.state} ${link.pending > 0 ? "busy" : ""}" data-testid="link-${link.from}-${link.to}"
    data-state=${link.state} data-pending=${link.pending} aria-pressed=${cut ? "true" : "false"} aria-label="Cut ${name}" title="${name}. Click to ${cut ? "heal" : "cut"}."
    ?disabled=${app.pendingFaults.has(linkKey(link.from, link.to))} @click=${() => app.setLinks([link], { state: cut ? "open" : "cut" })}>
    ${cut ? "cut" : duration(link.lagMs)}<small>${link.pending > 0 ? count(link.pending) : "\u00a0"}</small>
  </button>`;
}
