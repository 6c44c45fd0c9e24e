// openai-node as a customer uses it: `node customer.mjs WHAT` prints one line of JSON for the test to judge.
// Base URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY, the model from MODEL.

import OpenAI from "openai";

const model = process.env.MODEL;
const messages = [{ role: "user", content: "one two three" }];
const client = new OpenAI({ maxRetries: 0 });

/** What a stream said: its text read from choices[0] of every chunk, as most people write it, and each chunk's usage. */
async function streamed(options, isExtra = () => false) {
  let text = "";
  const usages = [];
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, ...options })) {
    if (!isExtra(chunk)) text += chunk.choices[0].delta.content ?? "";
    usages.push(chunk.usage ?? null);
  }
  return { text, usages };
}

/** What an error tells a program. */
async function refused(work) {
  let sent = 0;
  const counting = new OpenAI({
    fetch: (url, init) => {
      sent += 1;
      return fetch(url, init);
    },
  });
  try {
    await work(counting);
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    const { status, code, param, type } = error;
    const body = error.error ?? {};
    return { kind: error.constructor.name, status, code, param, type, sent, valid_models: body.valid_models ?? null };
  }
  throw new Error("it was not refused");
}

const WHAT = {
  async chat() {
    const { data, response, request_id } = await client.chat.completions.create({ model, messages }).withResponse();
    const header = response.headers.get("x-request-id");
    return { text: data.choices[0].message.content, usage: data.usage, request_id, header };
  },

  stream_not_asked: () => streamed({}),
  stream_asked: () => streamed({ stream_options: { include_usage: true } }, (chunk) => chunk.choices.length === 0),
  stream_refused: () => streamed({ stream_options: { include_usage: false } }),

  async stream_helper() {
    const stream = client.chat.completions.stream({ model, messages });
    const completion = await stream.finalChatCompletion();
    return { text: completion.choices[0].message.content, usage: completion.usage };
  },

  async response() {
    const response = await client.responses.create({ model, input: "one two three" });
    return { text: response.output_text, usage: response.usage };
  },

  async response_stream() {
    let text = "";
    let last;
    for await (const event of await client.responses.create({ model, input: "one two three", stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      last = event;
    }
    return { text, last: last.type, usage: last.response.usage };
  },

  async models() {
    const ids = [];
    for await (const each of client.models.list()) ids.push(each.id);
    return { ids, found: (await client.models.retrieve(model)).id };
  },

  unsupported_field: () => refused((it) => it.chat.completions.create({ model, messages, best_of: 2 })),
  unknown_model: () => refused((it) => it.chat.completions.create({ model: "no/such-model", messages })),
  upstream_refuses_us: () => refused((it) => it.chat.completions.create({ model, messages })),

  broken_stream: () =>
    refused(async (it) => {
      for await (const chunk of await it.chat.completions.create({ model, messages, stream: true })) {
        if (chunk.choices[0].finish_reason) throw new Error("a broken stream looked finished");
      }
    }),

  async left_stream() {
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      return { choices: chunk.choices.length }; // which aborts the request
    }
  },
};

console.log(JSON.stringify(await WHAT[process.argv[2]]()));
