/**
 * A stand-in for `geo-events up`, for work on the page alone: `npm run build && npm run mock -- 4290`, then open
 * http://127.0.0.1:4290. Three regions with replication, links that can be cut, and a SignalR hub over server-sent
 * events. All in memory, nothing checked beyond what the page can show.
 */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const PORT = Number(process.argv[2] ?? 4290);
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const RECORD_END = "\u001e";

const regions = ["West US", "North Europe", "Southeast Asia"].map((name, i) => ({
  name,
  port: PORT + 1 + i,
  feed: [],
  maxima: 0,
  functions: "running",
  cosmos: "online",
  runs: 0,
  clients: new Map(),
  messages: 0,
}));
const links = regions.flatMap((from) =>
  regions.filter((to) => to !== from).map((to) => ({ from, to, state: "open", lagMs: 80, queue: [] })),
);

function apply(region, event) {
  region.feed.push(event);
  region.maxima += event.region === region.name ? 1 : 0;
  region.runs += 2;
  const message = JSON.stringify({ type: 1, target: "console", arguments: [[event]] }) + RECORD_END;
  for (const client of region.clients.values()) {
    if (!client.hasShakenHands) continue;
    client.write(`data: ${message}\n\n`);
    region.messages += 1;
  }
}

setInterval(() => {
  for (const link of links) {
    while (link.state === "open" && link.queue[0]?.due <= Date.now()) apply(link.to, link.queue.shift().event);
  }
}, 20);

setInterval(() => {
  const ping = JSON.stringify({ type: 6 }) + RECORD_END;
  for (const region of regions) {
    for (const client of region.clients.values()) if (client.hasShakenHands) client.write(`data: ${ping}\n\n`);
  }
}, 10_000);

function state() {
  return {
    version: "mock",
    account: `http://127.0.0.1:${PORT}/`,
    regions: regions.map((region) => ({
      name: region.name,
      functions: {
        url: `http://127.0.0.1:${region.port}`,
        state: region.functions,
        invocations: region.runs,
        failures: 0,
      },
      cosmos: {
        url: "http://127.0.0.1/",
        state: region.cosmos,
        events: region.feed.length,
        materialized: region.maxima,
      },
      signalr: { url: "http://127.0.0.1", connections: region.clients.size, messages: region.messages },
    })),
    links: links.map((link) => ({
      from: link.from.name,
      to: link.to.name,
      state: link.state,
      lagMs: link.lagMs,
      pending: link.queue.length,
    })),
  };
}

async function bodyOf(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text;
}

function send(response, status, body, headers = {}) {
  const type = status >= 400 ? "application/problem+json" : "application/json";
  response.writeHead(status, { "Content-Type": type, ...headers }).end(JSON.stringify(body));
}

const problem = (status, title, detail, errors) => ({ type: "about:blank", title, status, detail, errors });

async function control(request, response) {
  const url = new URL(request.url, "http://mock");
  const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
  if (parts[0] !== "control") return page(url.pathname, response);
  if (request.method === "PUT") {
    const change = JSON.parse(await bodyOf(request));
    if (parts[1] === "regions") {
      const region = regions.find(({ name }) => name === parts[2]);
      Object.assign(region, change);
      if (change.functions === "stopped") {
        for (const client of region.clients.values()) client.end();
        region.clients.clear();
      }
    } else {
      Object.assign(
        links.find(({ from, to }) => from.name === parts[2] && to.name === parts[3]),
        change,
      );
    }
  }
  send(response, 200, state());
}

async function page(path, response) {
  const file = join(DIST, normalize(path === "/" ? "/index.html" : path));
  try {
    const content = await readFile(file);
    response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" }).end(content);
  } catch {
    send(response, 404, problem(404, "Not Found", path));
  }
}

function functions(region) {
  return async (request, response) => {
    const cors = {
      "Access-Control-Allow-Origin": request.headers.origin ?? "*",
      "Access-Control-Allow-Credentials": "true",
      "Access-Control-Allow-Headers": "content-type,x-requested-with,x-signalr-user-agent,authorization",
      "Access-Control-Allow-Methods": "GET,POST,DELETE",
    };
    if (request.method === "OPTIONS") return response.writeHead(204, cors).end();
    if (region.functions !== "running") return request.socket.destroy();
    const url = new URL(request.url, "http://mock");
    const route = url.pathname.replace(/^\/api\/?/, "");
    if (route === "negotiate") {
      const id = randomUUID();
      return send(
        response,
        200,
        {
          connectionId: id,
          connectionToken: id,
          negotiateVersion: 1,
          availableTransports: [{ transport: "ServerSentEvents", transferFormats: ["Text"] }],
        },
        cors,
      );
    }
    if (route === "" && request.method === "GET") {
      const id = url.searchParams.get("id");
      response.writeHead(200, { "Content-Type": "text/event-stream", ...cors }).write(":\n\n");
      region.clients.set(id, response);
      return request.on("close", () => region.clients.delete(id));
    }
    if (route === "" && request.method === "POST") {
      if ((await bodyOf(request)).includes('"protocol"')) {
        const client = region.clients.get(url.searchParams.get("id"));
        if (client) {
          client.write(`data: {}${RECORD_END}\n\n`);
          client.hasShakenHands = true;
        }
      }
      return send(response, 200, {}, cors);
    }
    if (route === "" && request.method === "DELETE") {
      region.clients.get(url.searchParams.get("id"))?.end();
      return response.writeHead(202, cors).end();
    }
    if (route === "WriteEvent") {
      const draft = JSON.parse(await bodyOf(request));
      const errors = [];
      if (!draft.deviceId) errors.push({ path: "$.deviceId", message: "must have 1 to 128 characters" });
      if (typeof draft.value !== "number") errors.push({ path: "$.value", message: "must be a number, such as 21.5" });
      if (errors.length > 0) {
        return send(response, 400, problem(400, "Invalid event", "Nothing was stored.", errors), cors);
      }
      const event = { id: randomUUID(), ...draft, region: region.name, time: new Date().toISOString() };
      if (!region.feed.some(({ id }) => id === event.id)) {
        apply(region, event);
        for (const link of links.filter(({ from }) => from === region)) {
          link.queue.push({ event, due: Date.now() + link.lagMs });
        }
      }
      return send(response, 201, event, cors);
    }
    if (route === "changes") {
      const token = url.searchParams.get("continuation");
      const limit = Number(url.searchParams.get("limit") ?? 100);
      const from = token === "now" ? region.feed.length : Number(token ?? 0);
      const events = region.feed.slice(from, from + limit);
      const next = from + events.length;
      const hasMore = next < region.feed.length;
      return send(response, 200, { region: region.name, events, continuation: String(next), hasMore }, cors);
    }
    if (route.startsWith("ReadAPI/")) {
      const deviceId = decodeURIComponent(route.slice(8));
      const rows = region.feed.filter((event) => event.deviceId === deviceId).slice(-20);
      const detail = `No event of a device \`${deviceId}\` has been materialized in this region yet.`;
      if (rows.length === 0) return send(response, 404, problem(404, "Unknown device", detail), cors);
      return send(
        response,
        200,
        rows.reverse().map(({ value, ...row }) => ({ ...row, maxValue: value })),
        cors,
      );
    }
    return send(response, 404, problem(404, "Not Found", url.pathname), cors);
  };
}

createServer(control).listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}`));
for (const region of regions) createServer(functions(region)).listen(region.port, "127.0.0.1");
