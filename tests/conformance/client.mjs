// The shared script for the official Node client.  `client.py` does the same, step by step.
import OpenAI from 'openai';

const [url, key, limited, model] = process.argv.slice(2);
const ask = [{ role: 'user', content: 'the ball is red' }];
const seen = {};
const client = (apiKey, more = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, ...more });

const good = client(key);
const short = { model, messages: ask, max_tokens: 3, temperature: 0 };
const chat = await good.chat.completions.create(short);
seen.chat = [chat.object, chat.choices[0].message.role, chat.usage !== undefined];

let text = '';
let usage = 0;
const chunks = await good.chat.completions.create({
  ...short, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of chunks) {
  text += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage?.total_tokens ?? usage;
}
seen.stream = [text === chat.choices[0].message.content, usage === chat.usage.total_tokens];

seen.models = [];
for await (const found of await good.models.list()) seen.models.push(found.id);

const error = async (call) => {
  try {
    await call();
  } catch (caught) {
    const name = caught.constructor.name;
    return caught.status === undefined ? [name] : [name, caught.status, caught.code];
  }
  return ['none'];
};
seen.wrong_key = await error(() => client('rk_no').models.list());
seen.wrong_model = await error(() => good.chat.completions.create({ model: 'x', messages: ask }));
seen.bad_request = await error(() => good.chat.completions.create({ model, messages: [] }));
seen.timeout = await error(() =>
  client(key, { timeout: 1 }).chat.completions.create({ model, messages: ask }));
const second = client(limited);
await second.models.list();
seen.limited = await error(() => second.models.list());

const stream = await good.chat.completions.create({
  model, messages: ask, max_tokens: 200, stream: true,
});
for await (const _ of stream) {
  stream.controller.abort();
  break;
}
seen.cancel = true;
console.log(JSON.stringify(seen));
