// Makes a feed function of one region start anew: deletes its leases, and nothing else.
//
//   node infra/tools/reset-leases.mjs https://ACCOUNT.documents.azure.com:443/ Materialized "West US"
//
// Stop the function first, and see docs/operations.md, "Replay". Whoever runs this is signed in with `az login` and may
// write to the container `leases`.
import { execFileSync } from "node:child_process";

const [endpoint, functionName, region] = process.argv.slice(2);
if (!region) {
  console.error("usage: reset-leases.mjs ACCOUNT_ENDPOINT FUNCTION REGION");
  process.exit(2);
}
const account = new URL(endpoint);
const documents = new URL("/dbs/eventsDb/colls/leases/docs", account);

// The SDK begins the id of a lease with the prefix of function.json, then the host name of the account: so a region whose
// name begins like another's keeps its leases.
const prefix = `${functionName}-${region}${account.hostname}`;

const token = execFileSync(
  "az",
  ["account", "get-access-token", "--resource", "https://cosmos.azure.com", "--query", "accessToken", "--output", "tsv"],
  { encoding: "utf8" },
).trim();

async function request(method, url, headers, body) {
  const response = await fetch(url, {
    method,
    headers: {
      Authorization: encodeURIComponent(`type=aad&ver=1.0&sig=${token}`),
      "x-ms-date": new Date().toUTCString(),
      "x-ms-version": "2018-12-31",
      ...headers,
    },
    body,
  });
  if (!response.ok && response.status !== 404) {
    throw new Error(`${method} ${url.pathname}: ${response.status} ${await response.text()}`);
  }
  return response;
}

const query = JSON.stringify({
  query: "SELECT c.id FROM c WHERE STARTSWITH(c.id, @prefix)",
  parameters: [{ name: "@prefix", value: prefix }],
});
const ids = [];
let continuation = "";
do {
  const page = await request(
    "POST",
    documents,
    {
      "Content-Type": "application/query+json",
      "x-ms-documentdb-isquery": "true",
      "x-ms-documentdb-query-enablecrosspartition": "true",
      ...(continuation && { "x-ms-continuation": continuation }),
    },
    query,
  );
  if (page.status === 404) throw new Error("there is no container eventsDb/leases in this account");
  ids.push(...(await page.json()).Documents.map(({ id }) => id));
  continuation = page.headers.get("x-ms-continuation") ?? "";
} while (continuation);

for (const id of ids) {
  const lease = new URL(`${documents.pathname}/${encodeURIComponent(id)}`, account);
  await request("DELETE", lease, { "x-ms-documentdb-partitionkey": JSON.stringify([id]) });
}
console.log(`${ids.length} leases of ${functionName} in ${region} deleted`);
