// The official client against the local service: negotiate by redirect, broadcast, user, group, reconnect, bad token.
//
// usage: node client.mjs http://127.0.0.1:8888 ACCESS_KEY
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const [endpoint, key] = process.argv.slice(2);
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(audience, claims = {}, secret = key) {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const content = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url({ aud: audience, exp, ...claims })}`;
  return `${content}.${createHmac("sha256", secret).update(content).digest("base64url")}`;
}

// What the negotiate function of an app answers.
let secret = key;
const app = createServer((request, response) => {
  const accessToken = token("http://127.0.0.1/client/?hub=events", { "asrs.s.uid": "ana" }, secret);
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ url: `${endpoint}/client/?hub=events`, accessToken }));
});
await new Promise((listening) => app.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${app.address().port}/api`;

async function rest(method, path, body) {
  const response = await fetch(endpoint + path, {
    method,
    headers: { authorization: `Bearer ${token(`http://127.0.0.1${path}`)}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.text()}`);
}

const build = () =>
  new HubConnectionBuilder().withUrl(url).withAutomaticReconnect([0, 50, 100]).configureLogging(LogLevel.None).build();

const received = [];
let wake = () => {};
async function expect(...values) {
  while (received.length < values.length) await new Promise((resolve) => (wake = resolve));
  assert.deepEqual(received.splice(0), values);
}

const connection = build();
connection.on("console", (value) => {
  received.push(value);
  wake();
});
await connection.start();
await rest("PUT", "/api/hubs/events/users/ana/groups/g");
await rest("POST", "/api/hubs/events/:send", { target: "console", arguments: ["all"] });
await rest("POST", "/api/hubs/events/users/ana/:send", { target: "console", arguments: ["user"] });
await rest("POST", "/api/hubs/events/groups/g/:send", { target: "console", arguments: ["group"] });
await rest("POST", "/api/hubs/events/users/bo/:send", { target: "console", arguments: ["other"] });
await rest("POST", "/api/hubs/events/:send", { target: "console", arguments: ["last"] });
await expect("all", "user", "group", "last");

// Nothing carries an invocation out, and the client is told so.
await assert.rejects(connection.invoke("anything"), /upstream/);

const first = connection.connectionId;
const reconnected = new Promise((resolve) => connection.onreconnected(resolve));
await rest("DELETE", `/api/hubs/events/connections/${first}`);
assert.notEqual(await reconnected, first);
await rest("POST", "/api/hubs/events/groups/g/:send", { target: "console", arguments: ["again"] });
await expect("again");
await connection.stop();

secret = "a-key-that-is-not-the-key-of-this-service";
await assert.rejects(build().start(), /401/);
app.close();
