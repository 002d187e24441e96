import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { base, door, key, tell } from "./report.mjs";

const url = new URL(base("everything", "/mcp") ?? "https://everything.test/mcp");
const headers = door === "base" ? { authorization: `Bearer ${key}` } : {};
const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
const client = new Client({ name: "test", version: "1" });

// The SDK's exception has the HTTP status as its code, and our answer at the end of its message.
const fields = (error) => ({ number: error.code, ...answer(error.message) });
const answer = (message) => {
  const at = message.indexOf("{");
  return at < 0 ? { message } : { answer: JSON.parse(message.slice(at)) };
};
const echo = async (message) => (await client.callTool({ name: "echo", arguments: { message } })).content[0].text;

await client.connect(transport);
await tell(async () => (await client.listTools()).tools.map((tool) => tool.name), fields);
await tell(() => echo("hello"), fields);
const steps = [];
await tell(async () => {
  const long = { name: "trigger-long-running-operation", arguments: { duration: 0.2, steps: 2 } };
  const done = await client.callTool(long, undefined, { onprogress: ({ progress }) => steps.push(progress) });
  return [steps, done.content[0].text];
}, fields);
await tell(() => client.callTool({ name: "get-env", arguments: {} }), fields);
await tell(() => echo("still"), fields);
await transport.terminateSession();
await client.close();
