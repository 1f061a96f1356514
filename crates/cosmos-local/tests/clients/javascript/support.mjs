// What all parts of the suite use: the accounts under test, and their regions' switches.
//
// The accounts are named by environment variables, so that the suite can also be run against others. The process that
// started it takes regions offline: one request per line of stdout, one answer per line of stdin.

import { CosmosClient } from "@azure/cosmos";
import { createInterface } from "node:readline";
import { after } from "node:test";

const endpoint = process.env.COSMOS_ENDPOINT;
const key = process.env.COSMOS_KEY;

/** The account's regions, in its own order. */
export const regions = process.env.COSMOS_REGIONS.split(",");

/** The endpoint of an account of the same regions, of which only one takes writes; the first to begin with. */
export const singleWriteEndpoint = process.env.COSMOS_SINGLE_WRITE_ENDPOINT;

/** The region of each gateway. */
const regionOf = new Map(process.env.COSMOS_GATEWAYS.split(",").map((pair) => pair.split("=")));

/** A client that prefers these regions, nearest first, and is closed when the tests of the file are done. */
export function connect(preferredLocations = regions, { connectionPolicy, ...options } = {}) {
  const client = new CosmosClient({
    endpoint,
    key,
    connectionPolicy: { preferredLocations, enableBackgroundEndpointRefreshing: false, ...connectionPolicy },
    plugins: [{ on: "request", plugin: recordAttempt }],
    ...options,
  });
  after(() => client.dispose());
  return client;
}

let recorded = [];

/** Sends a request about items as the SDK does, and keeps what came of it. */
async function recordAttempt(context, _, next) {
  const keep = (...codes) => {
    if (context.resourceType === "docs") recorded.push([regionOf.get(context.endpoint), ...codes]);
  };
  try {
    const response = await next(context);
    keep(response.code);
    return response;
  } catch (error) {
    keep(error.code, error.substatus ?? 0);
    throw error;
  }
}

/** What `action` gives, and its attempts at items: of each its region, its status and, when it failed, its substatus. */
export async function attempts(action) {
  recorded = [];
  const result = await action();
  return [result, recorded];
}

/** A new container of this name, keyed by `/tenant`; `more` is of its definition. */
export async function makeContainer(id, client = connect(), more = {}) {
  const { database } = await client.databases.createIfNotExists({ id: "javascript" });
  const partitionKey = { paths: ["/tenant"], kind: "Hash", version: 2 };
  const { container } = await database.containers.create({ id, partitionKey, ...more });
  return container;
}

/** The same container through another client. */
export function through(client, container) {
  return client.database("javascript").container(container.id);
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
after(() => process.stdin.destroy());

async function ask(request) {
  process.stdout.write(`${request}\n`);
  const { value } = await answers.next();
  if (value !== "done") throw new Error(`${request}: ${value}`);
}

export const setOffline = (region) => ask(`offline ${region}`);
/** It answers, and always with 503. */
export const setFailing = (region) => ask(`failing ${region}`);
/** To clients it is none of the account's. */
export const setWithdrawn = (region) => ask(`withdrawn ${region}`);
export const setOnline = (region) => ask(`online ${region}`);
/** Limits the request units per second of a region. */
export const limit = (region, units) => ask(`limited ${units} ${region}`);
export const unlimit = (region) => ask(`unlimited ${region}`);
/** Nothing that a region accepts arrives elsewhere, until its links are opened. */
export const cut = (region) => ask(`cut ${region}`);
export const open = (region) => ask(`open ${region}`);
/** Moves the writes of the account where only one region takes them. */
export const setWriteRegion = (region) => ask(`hub ${region}`);
/** Waits until every region has what the others have accepted. */
export const settled = () => ask("settled");
/** Splits the container's first physical partition. */
export const split = (container) => ask(`split ${container.database.id} ${container.id}`);
