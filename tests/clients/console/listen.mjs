// Connects to the hub of one region through its negotiate function and prints, one JSON line each,
// {"connected": true} and then every event that is pushed. Ends when stdin closes.
//
// usage: node listen.mjs http://127.0.0.1:7071
import { HubConnectionBuilder, LogLevel } from "@microsoft/signalr";

const [functions] = process.argv.slice(2);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const connection = new HubConnectionBuilder()
  .withUrl(`${functions}/api`)
  .withAutomaticReconnect()
  .configureLogging(LogLevel.Error)
  .build();
connection.on("console", (events) => {
  const receivedAt = Date.now();
  for (const event of events) print({ event, receivedAt });
});
connection.onclose((error) => {
  if (error) {
    console.error(error);
    process.exit(1);
  }
});

await connection.start();
print({ connected: true });

process.stdin.resume();
process.stdin.on("end", async () => {
  await connection.stop();
  process.exit(0);
});
