import { Octokit } from "@octokit/core";
import { retry } from "@octokit/plugin-retry";
import { base, action, key, tell } from "./report.mjs";

const Client = Octokit.plugin(retry);
const client = new Client({ auth: key, baseUrl: base("github"), log: { debug() {}, info() {}, warn() {}, error() {} } });
const issue = async () =>
  (await client.request("POST /repos/{owner}/{repo}/issues", { owner: "acme", repo: "tools", title: "t" })).data.number;
// It parses application/json alone; what else it gets is text.
const body = (data) => (typeof data === "string" ? JSON.parse(data) : data);
const fields = (error) => ({
  code: body(error.response?.data)?.code, header: error.response?.headers["exeat-code"], wait: error.response?.headers["retry-after"],
  message: error.message,
});

if (action === "allowed") await tell(issue, fields);
if (action === "denied") await tell(() => client.request("DELETE /repos/{owner}/{repo}", { owner: "acme", repo: "tools" }), fields);
if (action === "limited") {
  await tell(issue, fields);
  await tell(issue, fields);
}
