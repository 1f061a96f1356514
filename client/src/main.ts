/** The door of the page: makes the state, and draws it whenever it changes. */
import { render } from "lit-html";
import { App } from "./app.ts";
import { deployedRegions } from "./deployment.ts";
import { page } from "./view/page.ts";

const root = document.getElementById("app");
if (!root) throw new Error("the page has no #app to draw into");

/** Time between two drawings when nothing changes: countdowns and ages move on. */
const CLOCK_MS = 1_000;

let scheduled = false;
function draw(): void {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    if (root) render(page(app), root);
  });
}

const app = new App(
  draw,
  {
    get: () => new URL(location.href).searchParams.get("region"),
    set: (region) => {
      const url = new URL(location.href);
      url.searchParams.set("region", region);
      history.replaceState(null, "", url);
    },
  },
  deployedRegions(
    { VITE_REGIONS: import.meta.env.VITE_REGIONS, VITE_API_BASE: import.meta.env.VITE_API_BASE },
    location.href,
  ),
);

draw();
setInterval(draw, CLOCK_MS);
void app.run();
