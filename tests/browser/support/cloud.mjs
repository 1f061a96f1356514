/** The system under test: `geo-events up`, started and stopped by the test, or one that runs already. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** How long `up` may take until it is ready: the first time, it builds the page with npm. */
const START_MS = 300_000;

/** How long `up` may take to stop all its parts. */
const STOP_MS = 20_000;

/** Lines of the log of `up` that are kept for whoever has to find out why a test failed. */
const LOG_LINES = 200;

/**
 * @typedef {object} Cloud
 * @property {string} dashboard Address of the page and of the control API.
 * @property {{ name: string, functions: string }[]} regions
 * @property {string[]} log The last lines that the system wrote.
 * @property {boolean} isOurs Whether all events in it come from this test.
 * @property {() => Promise<void>} stop
 */

/**
 * `GEO_EVENTS` names the executable; `DASHBOARD`, the address of a system that runs already, goes before it.
 *
 * @returns {Promise<Cloud>}
 */
export async function startCloud() {
  const { DASHBOARD, GEO_EVENTS } = process.env;
  if (DASHBOARD) return attach(DASHBOARD);
  if (!GEO_EVENTS)
    throw new Error("set GEO_EVENTS to the path of the executable, or DASHBOARD to the address of a running system");
  return start(GEO_EVENTS);
}

async function attach(dashboard) {
  const state = await (await fetch(`${dashboard}/control/state`)).json();
  const regions = state.regions.map(({ name, functions }) => ({ name, functions: functions.url }));
  return { dashboard, regions, log: [], isOurs: false, stop: async () => {} };
}

async function start(executable) {
  const up = spawn(executable, ["up", "--ports", "auto", "--json"], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(up, "exit");
  /** @type {string[]} */
  const log = [];
  createInterface(up.stderr).on("line", (line) => {
    log.push(line);
    if (log.length > LOG_LINES) log.shift();
  });
  const stop = async () => {
    if (up.exitCode !== null || up.signalCode !== null) return;
    up.kill("SIGTERM");
    const late = setTimeout(() => up.kill("SIGKILL"), STOP_MS);
    const [code, signal] = await exited;
    clearTimeout(late);
    if (code !== 0) throw new Error(`up did not stop in order: ${signal ?? `exit code ${code}`}\n${log.join("\n")}`);
  };
  // Whatever ends this test, the system ends with it.
  process.once("exit", () => up.kill("SIGKILL"));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

  try {
    const { dashboard, regions } = await ready(up, exited, log);
    return { dashboard, regions, log, isOurs: true, stop };
  } catch (error) {
    up.kill("SIGKILL");
    throw error;
  }
}

/** The ready line. */
async function ready(up, exited, log) {
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), START_MS);
  try {
    const line = await Promise.race([
      once(createInterface(up.stdout), "line", { signal: deadline.signal }).then(([text]) => text),
      exited.then(([code, signal]) => {
        throw new Error(`up ended before it was ready: ${signal ?? `exit code ${code}`}`);
      }),
    ]);
    const message = JSON.parse(line);
    if (message.event !== "ready") throw new Error(`up said something else than ready: ${line}`);
    if (!message.page) throw new Error("up has no page: npm is missing, or the sources of the client are");
    return message;
  } catch (error) {
    const cause = deadline.signal.aborted ? new Error(`up was not ready in ${START_MS / 1000} s`) : error;
    cause.message += `\n${log.join("\n")}`;
    throw cause;
  } finally {
    clearTimeout(timer);
  }
}
