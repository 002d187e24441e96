import Stripe from "stripe";
import { base, door, action, key, tell } from "./report.mjs";

// Its own HTTP client has an agent of its own, which obeys no proxy variable; the one on fetch does. A base URL with a
// path is no option of this SDK: it is put in front here.
const at = base("stripe");
const send = (url, init) => fetch(at + new URL(url).pathname + new URL(url).search, init);
const client = new Stripe(key, { httpClient: Stripe.createFetchHttpClient(door === "base" ? send : undefined) });
const refund = async () => (await client.refunds.create({ charge: "ch_1" })).id;
const fields = (error) => ({
  code: error.code, header: error.headers?.["exeat-code"], wait: error.headers?.["retry-after"], message: error.message,
});

if (action === "allowed") await tell(refund, fields);
if (action === "denied") await tell(() => client.customers.del("cus_1"), fields);
if (action === "limited") {
  await tell(refund, fields);
  await tell(refund, fields);
}
