/** One page of the dashboard, as a person uses it, with a witness inside that sees what a person would. */
import assert from "node:assert/strict";

/** How long anything may take that is not under test: this machine may be busy with other things. */
export const PATIENCE_MS = 60_000;

/** What a page asks for before it connects. */
const NEGOTIATE = /\/negotiate\b/;

/**
 * Runs in the page before anything else. Notes for each event how many rows it got and when the first of them was
 * there, and for each write when its 201 arrived.
 */
function witness() {
  const now = () => performance.timeOrigin + performance.now();
  const rows = new Map();
  const accepted = new Map();
  const known = new WeakSet();
  window.witness = { rows, accepted };

  const note = (node) => {
    if (known.has(node)) return;
    known.add(node);
    const id = node.dataset.eventId;
    const row = rows.get(id) ?? { count: 0, at: now(), text: node.textContent.replace(/\s+/g, " ").trim() };
    row.count += 1;
    rows.set(id, row);
  };
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
      for (const node of addedNodes) {
        if (!(node instanceof Element)) continue;
        if (node.matches("[data-testid=event]")) note(node);
        for (const row of node.querySelectorAll("[data-testid=event]")) note(row);
      }
    }
  }).observe(document, { childList: true, subtree: true });

  const send = window.fetch;
  window.fetch = async (...request) => {
    const response = await send(...request);
    if (response.status === 201) {
      const at = now();
      const event = await response.clone().json();
      if (!accepted.has(event.id)) accepted.set(event.id, at);
    }
    return response;
  };
}

export class Dashboard {
  /** Errors that the page did not catch. There are none. */
  errors = [];
  /** Connections for pushes, when the page was opened `droppable`. */
  #sockets = [];

  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => this.errors.push(error));
  }

  /**
   * Opens the page and chooses a region in it; resolves when its feed is live. The WebSockets of a `droppable` page pass
   * through this process, which makes pushes a little slower.
   */
  static async open(context, address, region, { droppable = false } = {}) {
    const dashboard = new Dashboard(await context.newPage());
    if (droppable) {
      await dashboard.page.routeWebSocket(/./, (socket) => {
        socket.connectToServer();
        dashboard.#sockets.push(socket);
      });
    }
    await dashboard.page.addInitScript(witness);
    await dashboard.page.goto(address);
    await dashboard.watch(region);
    await dashboard.isLive();
    return dashboard;
  }

  async watch(region) {
    await this.#find("region-select").selectOption(region);
  }

  async close() {
    await this.page.close();
    assert.deepEqual(this.errors, []);
  }

  #find(id) {
    return this.page.getByTestId(id);
  }

  /** Resolves when the feed of the page is in this state: `live`, `busy` or `down`. */
  async isInState(state) {
    await this.page.locator(`[data-testid=connection-status][data-state=${state}]`).waitFor();
  }

  isLive() {
    return this.isInState("live");
  }

  /** Breaks the connection for pushes, as a network would; `false` when it is no WebSocket. */
  async drop() {
    const sockets = this.#sockets.splice(0);
    for (const socket of sockets) await socket.close({ code: 1011, reason: "dropped by the test" });
    return sockets.length > 0;
  }

  /** Keeps the page from connecting for pushes again, or lets it. */
  async block(isBlocked) {
    if (isBlocked) await this.page.route(NEGOTIATE, (route) => route.abort());
    else await this.page.unroute(NEGOTIATE);
  }

  /** Fills in the form; resolves with the id of the stored event. */
  async write(region, { deviceId, value }) {
    await this.#find("write-region").selectOption(region);
    await this.#find("write-device").fill(deviceId);
    await this.#find("write-value").fill(String(value));
    // While it is being written, the form shows no result.
    const shown = this.#find("write-id-result");
    const before = (await shown.isVisible()) ? await shown.textContent() : "";
    await this.#find("write-submit").click();
    const id = await this.page.waitForFunction((old) => {
      const text = document.querySelector("[data-testid=write-id-result]")?.textContent ?? "";
      return text !== old && text;
    }, before);
    return id.jsonValue();
  }

  /** Types something that is no event; resolves with what the form says about it. */
  async writeInvalid(region, value) {
    await this.#find("write-region").selectOption(region);
    await this.#find("write-value").fill(value);
    await this.#find("write-submit").click();
    const field = this.page.locator("#w-value[aria-invalid=true]");
    await field.waitFor();
    return this.page.locator(`#${await field.getAttribute("aria-describedby")}`).textContent();
  }

  /** Writes with `fetch` in the page, as any web application would. */
  writeByFetch(functions, event) {
    return this.page.evaluate(
      async ([address, body]) => {
        const response = await fetch(`${address}/api/WriteEvent`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(body),
        });
        if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
        return (await response.json()).id;
      },
      [functions, event],
    );
  }

  /** When each write of this page was answered 201: milliseconds since 1970. */
  async acceptances() {
    return new Map(await this.page.evaluate(() => [...window.witness.accepted]));
  }

  /** Rows that this page has ever shown, by the id of their event. */
  async rows() {
    return new Map(await this.page.evaluate(() => [...window.witness.rows]));
  }

  /** Resolves with the row of an event once it is there. */
  async row(id) {
    const row = await this.page.waitForFunction((wanted) => window.witness.rows.get(wanted), id);
    return row.jsonValue();
  }

  /** Resolves once all these events are there; each has one row, and one row only. */
  async showsOnce(ids) {
    await this.page
      .waitForFunction((wanted) => wanted.every((id) => window.witness.rows.has(id)), ids)
      .catch(async (error) => {
        const rows = await this.rows();
        const missing = ids.filter((id) => !rows.has(id));
        throw new Error(`${missing.length} of ${ids.length} events are not on the screen: ${missing.slice(0, 5)}`, {
          cause: error,
        });
      });
    const rows = await this.rows();
    const twice = ids.filter((id) => rows.get(id).count !== 1);
    assert.deepEqual(twice, [], "events with more than one row");
  }

  async read(region, deviceId) {
    await this.#find("read-region").selectOption(region);
    await this.#find("read-device").fill(deviceId);
    await this.#find("read-submit").click();
  }

  /** Reads a device until the row of this event is in the answer. */
  async readUntil(region, deviceId, id) {
    const deadline = Date.now() + PATIENCE_MS;
    const row = this.page.locator(`[data-testid=read-result] [data-event-id="${id}"]`);
    for (;;) {
      await this.read(region, deviceId);
      try {
        await row.waitFor({ timeout: 500 });
        return await row.textContent();
      } catch (error) {
        if (Date.now() > deadline) throw error;
      }
    }
  }

  /** Cuts a region off, or connects it again. */
  async cutOff(region, isCut) {
    await this.page.locator(`[data-testid="cut-${region}"][aria-pressed=${!isCut}]`).click();
    await this.page.locator(`[data-testid="cut-${region}"][aria-pressed=${isCut}]`).waitFor();
  }

  /** Cuts or heals one direction between two regions. */
  async setLink(from, to, state) {
    await this.#find(`link-${from}-${to}`).click();
    await this.page.locator(`[data-testid="link-${from}-${to}"][data-state=${state}]`).waitFor();
  }

  async healAll() {
    await this.#find("heal-all").click();
    await this.page.locator("[data-testid=heal-all]:disabled").waitFor();
  }

  /** Changes waiting at the start of a link. */
  async hasPending(from, to) {
    await this.page.locator(`[data-testid="link-${from}-${to}"]:not([data-pending="0"])`).waitFor();
  }

  async setCosmos(region, state) {
    await this.#find(`cosmos-${region}`).click();
    await this.#find(`cosmos-state-${region}`).filter({ hasText: state }).waitFor();
  }

  async setFunctions(region, state) {
    await this.#find(`functions-${region}`).click();
    await this.#find(`functions-state-${region}`).filter({ hasText: state }).waitFor();
  }

  async simulate(rate) {
    if (rate > 0) await this.#find("simulate-rate").fill(String(rate));
    await this.#find("simulate").click();
  }

  async tally(name) {
    return Number((await this.#find(`tally-${name}`).textContent()).replaceAll(",", ""));
  }

  /** Resolves when this page has written at least so many events. */
  async hasAccepted(count) {
    await this.page.waitForFunction((wanted) => window.witness.accepted.size >= wanted, count);
  }
}
