/** Pieces that several panels share. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { RegionAddress } from "../api/control.ts";
import type { RequestError } from "../api/problem.ts";
import { regionClass } from "./format.ts";

export function regionOptions(regions: readonly RegionAddress[], selected: string): TemplateResult[] {
  return regions.map(({ name }) => html`<option value=${name} ?selected=${name === selected}>${name}</option>`);
}

/** A region's name beside its colour. */
export function regionTag(regions: readonly RegionAddress[], name: string): TemplateResult {
  return html`<span class="tag ${regionClass(regions, name)}">${name}</span>`;
}

/** A failed request; messages of the fields in `shown` stand beside those fields already. */
export function problem(error: RequestError, shown: readonly string[] = []): TemplateResult {
  const rest = error.messagesBeside(shown);
  return html`<div class="result bad">
    <strong>${error.status > 0 ? `${error.status} ` : ""}${error.title}</strong>
    ${error.detail ? html`<p>${error.detail}</p>` : nothing}
    ${
      rest.length > 0
        ? html`<ul>
            ${rest.map((message) => html`<li>${message}</li>`)}
          </ul>`
        : nothing
    }
  </div>`;
}
