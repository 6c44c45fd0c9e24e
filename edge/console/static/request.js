// One request: what became of it, what it cost and why, and what is stored of it.

import { api, all } from "./api.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { count, milliseconds, perMillion, time, usdText } from "./format.js";
import { icon } from "./icons.js";
import { listAddress, statusBadge } from "./requests.js";
import { conversation } from "./stored.js";
import { button, card, copyButton, heading, skeleton, table, toast, trouble } from "./ui.js";

const ENDINGS = {
  completed: "The whole answer was sent.",
  client_gone: "Your program closed the connection before the end.",
  upstream_failed: "The model's server failed.",
  edge_lost: "The server that handled it was lost.",
};
const OUTCOMES = {
  measured: "Charged for what the model counted.",
  estimated: "Charged by an estimate, since the model did not say what it counted.",
  waived: "Not charged.",
  none: "Not charged: nothing was generated.",
  edge_lost: "Not charged.",
};
// What a price covers: tokens by their kind, the price's field, and what is counted within another kind.
const KINDS = [
  ["Prompt", "prompt_tokens", "prompt", ["cached_tokens", "cache_write_tokens"]],
  ["Prompt, from cache", "cached_tokens", "input_cache_read", []],
  ["Prompt, into cache", "cache_write_tokens", "input_cache_write", []],
  ["Completion", "completion_tokens", "completion", []],
];
// The clock that ends a log may differ from the one that ends a request by this much.
const WINDOW_S = 5;

export function requestView({ signal }, id) {
  const place = h("div", { class: "stack" }, skeleton());
  const back = h("a", { class: "back", href: listAddress() }, icon("back"), "Requests");

  async function load() {
    try {
      const [request, keys] = await Promise.all([
        api("GET", `requests/${encodeURIComponent(id)}`, { signal }),
        all("keys", { query: { include_revoked: true }, signal }).catch(() => []),
      ]);
      const name = keys.find((key) => key.id === request.key_id)?.name ?? request.key_id;
      const kept = h("div", null, skeleton(2));
      place.replaceChildren(facts(request, name), bill(request), kept);
      await loadStored(request, kept);
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, error.status === 404 ? undefined : load));
    }
  }

  async function loadStored(request, kept) {
    try {
      const log = await storedOf(request, signal);
      kept.replaceChildren(log ? storedCard(log, () => erase(request, kept)) : nothingStored());
    } catch (error) {
      if (error.status === 404) kept.replaceChildren(nothingStored());
      else if (error.name !== "AbortError")
        kept.replaceChildren(
          card(
            "Stored content",
            trouble(error, () => loadStored(request, kept)),
          ),
        );
    }
  }

  async function erase(request, kept) {
    const done = await confirm(
      "Delete what is stored?",
      h("p", null, "The input and output of this request. The request and its cost stay. This cannot be undone."),
      "Delete",
      () => api("DELETE", `logs/${encodeURIComponent(request.id)}`),
    );
    if (!done) return;
    kept.replaceChildren(nothingStored());
    toast("Stored content was deleted.");
    document.querySelector("main h1").focus();
  }

  void load();
  return [
    back,
    heading(
      "Request",
      h(
        "span",
        { class: "id" },
        h("code", null, id),
        copyButton("Copy id", () => id, { class: "button quiet small" }),
      ),
    ),
    place,
  ];
}

/** The log of a request, if it has one: looked for in the list, since to ask for one that is not there is an error. */
async function storedOf(request, signal) {
  const query = {
    from: Math.max(0, request.completed_at - WINDOW_S),
    to: request.completed_at + WINDOW_S,
    key: request.key_id,
  };
  const near = await api("GET", "logs", { query: { limit: 100, ...query }, signal });
  return near.has_more || near.data.some((log) => log.id === request.id)
    ? api("GET", `logs/${encodeURIComponent(request.id)}`, { signal })
    : null;
}

function facts(request, keyName) {
  const fact = (label, ...value) => h("div", null, h("dt", null, label), h("dd", null, value));
  return h(
    "section",
    { class: "card", "aria-label": "What happened" },
    h(
      "dl",
      { class: "facts" },
      fact("Status", statusBadge(request)),
      fact("Model", request.model),
      fact("Key", keyName),
      fact("Began", time(request.created_at)),
      fact("First byte after", milliseconds(request.time_to_first_byte_ms)),
      fact("Took", milliseconds(request.duration_ms)),
      fact("Called", h("code", null, request.endpoint), request.streamed ? " streamed" : ""),
      fact("Ending", ENDINGS[request.ending] ?? request.ending),
    ),
  );
}

function bill(request) {
  const rows = KINDS.map(([label, name, priced, within]) => ({
    label,
    tokens: request.usage[name] - within.reduce((sum, part) => sum + request.usage[part], 0),
    price: request.price?.[priced] ?? (priced.startsWith("input_cache") ? request.price?.prompt : null),
  })).filter((row) => row.tokens > 0);
  if (request.usage.images > 0) rows.push({ label: "Images", tokens: request.usage.images, price: null });
  return card(
    "Cost",
    h(
      "p",
      { class: "cost-line" },
      h("strong", null, usdText(request.cost_usd)),
      h("span", { class: "quiet" }, ` ${OUTCOMES[request.outcome] ?? ""}`),
    ),
    rows.length > 0 &&
      table(
        "What was counted",
        [
          { label: "Tokens", kind: "title", cell: (row) => row.label },
          { label: "Count", align: "number", cell: (row) => count(row.tokens) },
          { label: "Price per million", align: "number", cell: (row) => (row.price ? perMillion(row.price) : "–") },
        ],
        rows,
      ),
    request.usage.reasoning_tokens > 0 &&
      h("p", { class: "hint" }, `${count(request.usage.reasoning_tokens)} of the completion tokens are reasoning.`),
    request.refunds.length > 0 &&
      h(
        "div",
        { class: "refunds" },
        h("h3", null, "Given back"),
        h(
          "ul",
          null,
          request.refunds.map((refund) =>
            h(
              "li",
              null,
              usdText(refund.amount_usd),
              " ",
              h("bdi", null, refund.reason),
              " ",
              h("span", { class: "quiet" }, time(refund.created_at)),
            ),
          ),
        ),
      ),
  );
}

function storedCard(log, erase) {
  return card(
    "Stored content",
    h(
      "div",
      { class: "stored-head" },
      h("p", { class: "card-note" }, "Deletes itself ", time(log.expires_at, { relative: true })),
      button("Delete now", { kind: "quiet danger-text", onclick: erase }),
    ),
    conversation(log),
  );
}

const nothingStored = () =>
  card(
    "Stored content",
    h(
      "p",
      { class: "quiet" },
      "Nothing is stored of this request. A key stores inputs and outputs only if you turn that on in its settings.",
    ),
  );
