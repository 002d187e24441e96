import { base, door, action, key, tell } from "./report.mjs";

const root = base("saas") ?? "https://saas.test";
const headers = door === "base" ? { authorization: `Bearer ${key}` } : {};

class Refused extends Error {
  constructor(response, body) {
    super(body.detail ?? body.title);
    Object.assign(this, { status: response.status, body, header: response.headers.get("exeat-code"), wait: response.headers.get("retry-after") });
  }
}

async function get(path) {
  const response = await fetch(root + path, { headers });
  const body = await response.json();
  if (!response.ok) throw new Refused(response, body);
  return body;
}

const fields = (error) => ({ code: error.body?.code, header: error.header, wait: error.wait });
if (action === "allowed") await tell(() => get("/items/node-fetch"), fields);
if (action === "denied") await tell(() => get("/elsewhere/node"), fields);
if (action === "limited") {
  // fetch waits for nobody: a program reads Retry-After itself.
  for (let attempt = 0; attempt < 2; attempt++) {
    await tell(() => get("/items/limited"), fields);
  }
}
