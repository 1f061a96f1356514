// What the hooks need of the deployment's output STAMPS: `lines`, one per region for the shell; `urls`, the arguments of a
// smoke test of all regions; `client`, the list beside the web client that says where the functions of each region are.
const stamps = JSON.parse(process.env.STAMPS);

const line = ({ region, resourceGroup, app, storage, url }) => [region, resourceGroup, app, storage, url].join("\t");
const address = ({ region, url }) => ({ name: region, functions: url });

const forms = {
  lines: () => stamps.map(line).join("\n"),
  urls: () => stamps.map(({ url }) => `--url\n${url}`).join("\n"),
  client: () => JSON.stringify({ regions: stamps.map(address) }, null, 2),
};

console.log(forms[process.argv[2]]());
