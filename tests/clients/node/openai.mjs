import OpenAI from "openai";
import { base, action, key, tell } from "./report.mjs";

const client = new OpenAI({ apiKey: key, baseURL: base("models", "/v1") });
const ask = { model: "m", messages: [{ role: "user", content: "hello" }] };
const chat = async () => (await client.chat.completions.create(ask)).choices[0].message.content;
const fields = (error) => ({
  code: error.code, header: error.headers?.get("exeat-code"), wait: error.headers?.get("retry-after"), message: error.message,
});

if (action === "allowed") {
  await tell(chat, fields);
  await tell(async () => {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) text += chunk.choices[0].delta.content;
    return text;
  }, fields);
}
if (action === "denied") await tell(() => client.embeddings.create({ model: "m", input: "x" }), fields);
if (action === "limited") {
  await tell(chat, fields);
  await tell(chat, fields);
}
