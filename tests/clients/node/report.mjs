// What a client made of its calls, one JSON text a line; and where it calls: through the proxy, or at the base URL.

export const [door, action] = process.argv.slice(2);
export const key = door === "base" ? process.env.EXEAT_API_KEY : "an-agent-needs-none";

/** The base URL of a connection; undefined leaves the client its own, and the proxy leads it. */
export function base(connection, path = "") {
  return door === "base" ? `${process.env.EXEAT_BASE_URL}/${connection}${path}` : undefined;
}

/** The outcome of one call of a client. `fields` picks from the client's own exception. */
export async function tell(call, fields) {
  try {
    console.log(JSON.stringify({ ok: await call() }));
  } catch (error) {
    console.log(JSON.stringify({ raised: error.constructor.name, status: error.status ?? error.statusCode, ...fields(error) }));
  }
}

// Everything that the program could see: a secret in its reach would be in the output.
console.error(JSON.stringify(process.env));
