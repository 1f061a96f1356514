// What the hooks need of the deployment's output STAMPS: `lines`, one per region for the shell, or `client`, the list
// beside the web client that says where the functions of each region are.
const stamps = JSON.parse(process.env.STAMPS);

const forms = {
  lines: () =>
    stamps.map(({ region, resourceGroup, app, storage, url }) => [region, resourceGroup, app, storage, url].join("\t")).join("\n"),
  client: () => JSON.stringify({ regions: stamps.map(({ region, url }) => ({ name: region, functions: url })) }, null, 2),
};

console.log(forms[process.argv[2]]());
