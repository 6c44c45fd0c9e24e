// Stored inputs and outputs, for reading: as a conversation where they are one, else as they are. Always as text.

import { h } from "./dom.js";
import { notice } from "./ui.js";

/** Both directions of a log, each with its raw form behind a switch. */
export function conversation(log) {
  return h(
    "div",
    { class: "stored" },
    log.input ? side("Input", log.input, inputTurns) : absent("Input", log.has_input),
    log.output ? side("Output", log.output, outputTurns, log.output_raw) : absent("Output", log.has_output),
  );
}

const absent = (title) =>
  h("section", { "aria-label": title }, h("h3", null, title), h("p", { class: "quiet" }, "Not stored."));

function side(title, body, turnsOf, rawBody) {
  const read = parsed(body);
  const turns = read === undefined ? [] : turnsOf(read);
  const views = [];
  if (turns.length) views.push(["Conversation", () => turns.map(turn)]);
  views.push([
    turns.length ? "JSON" : "Content",
    () => text(read === undefined ? body.content : JSON.stringify(read, null, 2)),
  ]);
  if (rawBody) views.push(["Stream", () => text(rawBody.content)]);
  const place = h("div", { class: "stored-body" });
  const buttons = views.map(([label, build]) =>
    h(
      "button",
      { type: "button", "aria-pressed": "false", onclick: (event) => choose(event.currentTarget, build) },
      label,
    ),
  );

  function choose(chosen, build) {
    for (const each of buttons) each.setAttribute("aria-pressed", String(each === chosen));
    place.replaceChildren(...[build()].flat());
  }

  choose(buttons[0], views[0][1]);
  return h(
    "section",
    { "aria-label": title },
    h(
      "div",
      { class: "stored-title" },
      h("h3", null, title),
      views.length > 1 &&
        h("div", { class: "switcher", role: "group", "aria-label": `How to show the ${title.toLowerCase()}` }, buttons),
    ),
    body.truncated && notice("warn", h("p", null, "It was longer than what is stored: this is its beginning.")),
    body.encoding === "base64" && notice("warn", h("p", null, "It is not text: shown in base64.")),
    place,
  );
}

const text = (content) => h("pre", { tabindex: "0" }, content);

function turn({ role, content, note }) {
  return h(
    "div",
    { class: `turn ${role === "user" ? "from-user" : ""}` },
    h("p", { class: "turn-role" }, role, note && h("span", { class: "quiet" }, ` ${note}`)),
    h("div", { class: "turn-text" }, content),
  );
}

function parsed(body) {
  if (body.encoding !== "utf-8") return undefined;
  try {
    return JSON.parse(body.content);
  } catch {
    return undefined;
  }
}

const isObject = (value) => typeof value === "object" && value !== null;

/** The turns of a request: chat messages, or a Responses input. */
function inputTurns(body) {
  if (!isObject(body)) return [];
  const turns = [];
  if (typeof body.instructions === "string") turns.push({ role: "instructions", content: body.instructions });
  const said = body.messages ?? body.input;
  if (typeof said === "string") turns.push({ role: "user", content: said });
  else if (Array.isArray(said))
    turns.push(
      ...said
        .filter(isObject)
        .map((each) => ({ role: String(each.role ?? each.type ?? "item"), content: words(each) })),
    );
  return turns;
}

/** The turns of an answer: chat choices, or a Responses output. */
function outputTurns(body) {
  if (!isObject(body)) return [];
  const turns = [];
  for (const choice of Array.isArray(body.choices) ? body.choices : []) {
    const message = choice?.message;
    if (!isObject(message)) continue;
    const thought = message.reasoning_content ?? message.reasoning;
    if (typeof thought === "string" && thought) turns.push({ role: "reasoning", content: thought });
    turns.push({
      role: "assistant",
      content: words(message),
      note: choice.finish_reason && choice.finish_reason !== "stop" ? `ended: ${choice.finish_reason}` : "",
    });
  }
  for (const item of Array.isArray(body.output) ? body.output : []) {
    if (isObject(item)) turns.push({ role: String(item.role ?? item.type ?? "item"), content: words(item) });
  }
  if (isObject(body.error))
    turns.push({ role: "error", content: String(body.error.message ?? JSON.stringify(body.error)) });
  return turns;
}

/** What a message says, in words; what is not words, as JSON. */
function words(message) {
  const { content } = message;
  const said =
    typeof content === "string"
      ? [content]
      : Array.isArray(content)
        ? content.map((part) => (isObject(part) ? (part.text ?? `[${part.type ?? "part"}]`) : String(part)))
        : [];
  if (Array.isArray(message.tool_calls))
    said.push(...message.tool_calls.map((call) => JSON.stringify(call.function ?? call)));
  return said.length ? said.map(String).join("\n") : JSON.stringify(message, null, 2);
}
