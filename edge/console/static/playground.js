// One streamed chat, with what it costs while it comes, and what it did cost when it is done.

import { api, ApiError, refusal } from "./api.js";
import { h } from "./dom.js";
import { aboutUsd, count, milliseconds, plural, usd } from "./format.js";
import { playgroundKey } from "./playground_key.js";
import { events } from "./sse.js";
import { button, empty, field, heading, select, skeleton, speak, trouble } from "./ui.js";

// Nobody has counted while an answer comes: this is for the guess that stands there until then.
const CHARACTERS_PER_TOKEN = 4;
const BILL_TRIES = 12;
const BILL_WAIT_MS = 500;

export function playgroundView({ signal, query }) {
  const place = h("div", null, skeleton());

  async function load() {
    try {
      const models = (await api("GET", "models", { signal })).data;
      if (models.length) place.replaceChildren(room(models, query.get("model"), signal));
      else place.replaceChildren(empty("chat", "No models yet", "The operator of this service has not offered any."));
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, load));
    }
  }

  void load();
  return [
    heading("Playground", "Ask a model something. Answers are charged to your balance, as your programs' are."),
    place,
  ];
}

function room(models, wanted, signal) {
  const model = select(
    "model",
    models.map((each) => [each.id, each.id]),
    models.some((each) => each.id === wanted) ? wanted : models[0].id,
  );
  const system = h("textarea", { name: "system", rows: "3", placeholder: "You are a helpful assistant." });
  const longest = h("input", {
    name: "max_tokens",
    type: "number",
    min: "1",
    step: "1",
    value: "512",
    inputmode: "numeric",
  });
  const heat = h("input", {
    name: "temperature",
    type: "number",
    min: "0",
    max: "2",
    step: "0.1",
    placeholder: "default",
    inputmode: "decimal",
  });
  const own = h("input", {
    name: "own_key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "made for you",
  });
  const ask = h("textarea", {
    name: "ask",
    rows: "3",
    required: true,
    placeholder: "Write a message",
    "aria-label": "Message",
    "aria-keyshortcuts": "Enter",
  });
  const send = h("button", { type: "submit", class: "button primary" }, "Send");
  const stop = button("Stop", { hidden: true });
  const clear = button("New chat", { kind: "quiet", onclick: () => reset() });
  const log = h("div", { class: "chat-log", role: "log", "aria-label": "Chat", "aria-live": "off", tabindex: "0" });
  let messages = [];
  let asking = null;

  const greeting = () =>
    h(
      "p",
      { class: "chat-empty" },
      "The chat starts here. Unless your key stores content, only this page remembers it.",
    );

  function reset() {
    asking?.abort();
    messages = [];
    log.replaceChildren(greeting());
    ask.focus();
  }

  function busy(on) {
    send.hidden = on;
    stop.hidden = !on;
    log.setAttribute("aria-busy", String(on));
  }

  async function submit(event) {
    event.preventDefault();
    const question = ask.value.trim();
    if (!question || asking) return;
    log.querySelector(".chat-empty")?.remove();
    ask.value = "";
    const asked = [...messages, { role: "user", content: question }];
    const said = [system.value, ...asked.map((each) => each.content)].join("").length;
    const bubble = answerBubble(Math.ceil(said / CHARACTERS_PER_TOKEN));
    log.append(turn("user", "You", h("div", { class: "turn-text" }, question)), bubble.node);
    log.scrollTop = log.scrollHeight;
    asking = new AbortController();
    busy(true);
    try {
      const text = await answered(bubble, asked);
      messages = [...asked, { role: "assistant", content: text }];
    } catch (error) {
      if (error.name === "AbortError") bubble.stopped();
      else bubble.fail(broken(error));
      // What is on the page is what the model is told of it next time; what got no answer can be sent again.
      if (bubble.text()) messages = [...asked, { role: "assistant", content: bubble.text() }];
      else if (error.name !== "AbortError" && !ask.value) ask.value = question;
    }
    asking = null;
    busy(false);
    ask.focus();
  }

  async function answered(bubble, asked) {
    const chosen = models.find((each) => each.id === model.value);
    const key = own.value.trim() || (await playgroundKey());
    const started = performance.now();
    const body = {
      model: chosen.id,
      stream: true,
      stream_options: { include_usage: true },
      messages: system.value.trim() ? [{ role: "system", content: system.value.trim() }, ...asked] : asked,
      ...(longest.value ? { max_tokens: Number(longest.value) } : {}),
      ...(heat.value ? { temperature: Number(heat.value) } : {}),
    };
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.any([signal, asking.signal]),
      cache: "no-store",
    });
    if (!answer.ok) throw await refusal(answer);
    const id = answer.headers.get("x-request-id");
    try {
      await read(answer, bubble, chosen, started);
    } finally {
      void bubble.settle(id, signal);
    }
    return bubble.text();
  }

  async function read(answer, bubble, chosen, started) {
    let first = null;
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message, { status: answer.status });
      const delta = event.choices?.[0]?.delta ?? {};
      const thought = delta.reasoning_content ?? delta.reasoning;
      if (thought || delta.content) {
        first ??= performance.now() - started;
        const near = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
        bubble.add(delta.content ?? "", thought ?? "", chosen.pricing, first);
        if (near) log.scrollTop = log.scrollHeight;
      }
      if (event.usage) bubble.measured(event.usage, chosen.pricing, performance.now() - started);
    }
  }

  stop.addEventListener("click", () => asking?.abort());
  signal.addEventListener("abort", () => asking?.abort());
  ask.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask.form.requestSubmit();
  });
  log.append(greeting());
  return h(
    "div",
    { class: "playground-room" },
    h(
      "section",
      { class: "chat", "aria-label": "Chat" },
      log,
      h(
        "form",
        { class: "chat-form", onsubmit: submit },
        ask,
        h(
          "div",
          { class: "chat-actions" },
          clear,
          h("span", { class: "hint" }, "Enter sends, Shift+Enter makes a line"),
          stop,
          send,
        ),
      ),
    ),
    h(
      "aside",
      { class: "card chat-settings", "aria-label": "Settings" },
      field("Model", model),
      field("Instructions", system, { optional: true }),
      h("div", { class: "columns two" }, field("Tokens at most", longest), field("Temperature", heat)),
      field("API key", own, {
        optional: true,
        hint: "Left empty, a key named Playground is made for this chat. It ends when you leave the page, within the hour at the latest. Paste one of yours to chat with its limits. Either stays in this page's memory.",
      }),
    ),
  );
}

const turn = (role, name, ...children) =>
  h("div", { class: `turn ${role === "user" ? "from-user" : ""}` }, h("p", { class: "turn-role" }, name), children);

/** A connection that broke off in the middle has words of the browser's own, which help nobody. */
const broken = (error) =>
  error instanceof TypeError ? new ApiError("The connection broke off. Check it, then send again.") : error;

/** An answer as it grows. Text is appended to text nodes, whatever it looks like. */
function answerBubble(promptTokens) {
  const said = document.createTextNode("");
  const thought = document.createTextNode("");
  const thoughts = h(
    "details",
    { class: "thoughts", hidden: true },
    h("summary", null, "Reasoning"),
    h("div", { class: "turn-text quiet" }, thought),
  );
  const meter = h("p", { class: "meter" }, h("span", { class: "dots" }, "Waiting for the model"));
  const place = h("div");
  const node = turn("assistant", "Model", thoughts, h("div", { class: "turn-text answer" }, said), place, meter);
  let pieces = 0;
  let firstMs = 0;
  let words = null; // what the meter says once the model has counted

  return {
    node,
    text: () => said.data,
    add(content, reasoning, pricing, first) {
      pieces += 1;
      firstMs = first;
      said.appendData(content);
      thought.appendData(reasoning);
      thoughts.hidden = thought.length === 0;
      meter.textContent = `about ${plural(pieces, "token")} · about ${aboutUsd(promptTokens * Number(pricing.prompt) + pieces * Number(pricing.completion))} so far · first after ${milliseconds(Math.round(first))}`;
    },
    measured(usage, pricing, tookMs) {
      const made = usage.completion_tokens ?? 0;
      const rate =
        made > 1 && tookMs > firstMs ? ` · ${Math.round((made - 1) / ((tookMs - firstMs) / 1000))} tokens/s` : "";
      words = `${count(usage.prompt_tokens ?? 0)} tokens in, ${count(made)} out · first after ${milliseconds(Math.round(firstMs))}${rate}`;
      const about = (usage.prompt_tokens ?? 0) * Number(pricing.prompt) + made * Number(pricing.completion);
      meter.textContent = `${words} · about ${aboutUsd(about)}`;
    },
    /** Nothing was asked yet where it was stopped before an answer began: then no bill comes either. */
    stopped() {
      if (pieces === 0) meter.textContent = "Stopped before the answer began.";
    },
    fail(error) {
      meter.textContent = words ?? "";
      place.replaceChildren(trouble(error));
    },
    /** The exact cost, from the bill. */
    async settle(id, signal) {
      const link = h("a", { href: `#/requests/${encodeURIComponent(id)}` }, "details");
      for (let attempt = 0; attempt < BILL_TRIES && !signal.aborted; attempt += 1) {
        await new Promise((resolve) => setTimeout(resolve, BILL_WAIT_MS));
        const found = await api("GET", "requests", { query: { limit: 100 }, signal }).catch(() => null);
        const bill = found?.data.find((request) => request.id === id);
        if (!bill) continue;
        const told =
          words ?? `${count(bill.usage.prompt_tokens)} tokens in, ${count(bill.usage.completion_tokens)} out`;
        meter.replaceChildren(`${told} · cost `, h("strong", null, usd(bill.cost_usd)), " · ", link);
        speak(`Answer finished. ${told}.`);
        return;
      }
      if (!signal.aborted) meter.append(" · the exact cost comes later: ", link);
    },
  };
}
