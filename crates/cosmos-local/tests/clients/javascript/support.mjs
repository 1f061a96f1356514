// What all parts of the suite use: the account under test, and its regions' switches.
//
// The account is named by environment variables, so that the suite can also be run against another one. The process that
// started it takes regions offline: one request per line of stdout, one answer per line of stdin.

import { CosmosClient } from "@azure/cosmos";
import { createInterface } from "node:readline";
import { after } from "node:test";

const endpoint = process.env.COSMOS_ENDPOINT;
const key = process.env.COSMOS_KEY;

/** The account's regions, in its own order. */
export const regions = process.env.COSMOS_REGIONS.split(",");

/** A client that prefers these regions, nearest first, and is closed when the tests of the file are done. */
export function connect(preferredLocations = regions) {
  const client = new CosmosClient({
    endpoint,
    key,
    connectionPolicy: { preferredLocations, enableBackgroundEndpointRefreshing: false },
  });
  after(() => client.dispose());
  return client;
}

/** A new container of this name, keyed by `/tenant`. */
export async function makeContainer(id, client = connect()) {
  const { database } = await client.databases.createIfNotExists({ id: "javascript" });
  const { container } = await database.containers.create({ id, partitionKey: { paths: ["/tenant"], kind: "Hash", version: 2 } });
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
export const setOnline = (region) => ask(`online ${region}`);
/** Waits until every region has what the others have accepted. */
export const settled = () => ask("settled");
/** Splits the container's first physical partition. */
export const split = (container) => ask(`split ${container.database.id} ${container.id}`);
