/** Simulated devices, and the count that shows that nothing gets lost. */
import { html, nothing, type TemplateResult } from "lit-html";
import type { App } from "../app.ts";
import { RATES } from "../simulator.ts";
import { count } from "./format.ts";

export function simulatePanel(app: App): TemplateResult {
  const { simulator, tally } = app;
  const toggle = () => (simulator.isRunning ? simulator.stop() : simulator.start());
  const setRate = (event: Event) => simulator.setRate(Number((event.target as HTMLInputElement).value));
  const trouble = [
    simulator.unanswered > 0 ? `${count(simulator.unanswered)} unanswered` : "",
    simulator.refused > 0 ? `${count(simulator.refused)} refused` : "",
  ].filter((text) => text !== "");
  return html`<section class="panel" aria-labelledby="simulate-title">
    <div class="head">
      <h2 id="simulate-title">Simulated devices</h2>
      <button
        type="button"
        role="switch"
        class="switch"
        data-testid="simulate"
        aria-checked=${simulator.isRunning ? "true" : "false"}
        aria-labelledby="simulate-title"
        @click=${toggle}
      >
        <i aria-hidden="true"></i><span>${simulator.isRunning ? "on" : "off"}</span>
      </button>
    </div>
    <div class="rate">
      <label for="rate">Events per second</label>
      <input id="rate" type="range" data-testid="simulate-rate" min=${RATES.min} max=${RATES.max} .value=${String(simulator.rate)} @input=${setRate} />
      <output for="rate">${simulator.rate}</output>
    </div>
    <dl class="tally">
      <div><dt>accepted</dt><dd data-testid="tally-accepted">${count(tally.accepted)}</dd></div>
      <div><dt>seen here</dt><dd data-testid="tally-seen">${count(tally.seen)}</dd></div>
      <div class=${tally.missing > 0 ? "warn" : tally.accepted > 0 ? "good" : ""}>
        <dt>missing</dt><dd data-testid="tally-missing">${count(tally.missing)}</dd>
      </div>
    </dl>
    <p class="muted small">
      Of the events this page wrote. ${
        app.cloud
          ? "Cut a region off or stop its functions, then heal it: missing goes back to 0."
          : "Missing goes back to 0 once all have arrived."
      }
    </p>
    ${
      simulator.blocked || trouble.length > 0
        ? html`<p class="small warn" role="status">
            ${simulator.blocked ? `Paused: ${simulator.blocked}. ` : nothing}${trouble.join(", ")}${
              trouble.length > 0 && simulator.lastError
                ? html` <span class="muted">(${simulator.lastError})</span>`
                : nothing
            }
          </p>`
        : nothing
    }
  </section>`;
}
