// What was called, newest first; or what is stored of it.

import { all, api } from "./api.js";
import { confirm } from "./dialogs.js";
import { h } from "./dom.js";
import { bytes, count, milliseconds, time, usd } from "./format.js";
import { badge, button, cell, empty, heading, select, skeleton, table, toast, trouble } from "./ui.js";

const PAGE = 25;
const PERIODS = [
  ["", "All time"],
  ["3600", "Last hour"],
  ["86400", "Last 24 hours"],
  ["604800", "Last 7 days"],
  ["2592000", "Last 30 days"],
];
const SHOW = [
  ["", "All requests"],
  ["errors", "Errors only"],
  ["stored", "With stored content"],
];

let lastAddress = "#/requests";

/** Where the list was left, with its filters. */
export const listAddress = () => lastAddress;

export function requestsView({ signal, query }) {
  lastAddress = location.hash || lastAddress;
  const place = h("div", null, skeleton());
  const period = select("period", PERIODS, query.get("period") ?? "");
  const show = select("show", SHOW, query.get("show") ?? "");
  const model = select("model", [["", "All models"]], "");
  const key = select("key", [["", "All keys"]], "");
  const erase = button("Delete stored content", { kind: "quiet danger-text", onclick: () => eraseAll() });
  const filters = h(
    "form",
    {
      class: "filters",
      "aria-label": "Filter",
      onsubmit: (event) => event.preventDefault(),
      onchange: () => keepAndLoad(),
    },
    [
      ["Show", show],
      ["Time", period],
      ["Model", model],
      ["Key", key],
    ].map(([label, control]) => h("label", null, h("span", null, label), control)),
  );
  let names = new Map();
  let loading = new AbortController();

  async function start() {
    const [models, keys] = await Promise.all([
      api("GET", "models", { signal })
        .then((found) => found.data)
        .catch(() => []),
      all("keys", { query: { include_revoked: true }, signal }).catch(() => []),
    ]);
    names = new Map(keys.map((each) => [each.id, each.name]));
    offer(
      model,
      models.map((each) => [each.id, each.id]),
      query.get("model") ?? "",
    );
    offer(
      key,
      keys.map((each) => [each.id, each.name]),
      query.get("key") ?? "",
    );
    await load();
  }

  function keepAndLoad() {
    const chosen = Object.entries({
      show: show.value,
      period: period.value,
      model: model.value,
      key: key.value,
    }).filter(([, value]) => value);
    lastAddress = `#/requests${chosen.length ? `?${new URLSearchParams(chosen)}` : ""}`;
    history.replaceState(null, "", lastAddress);
    place.replaceChildren(skeleton());
    void load();
  }

  const stored = () => show.value === "stored";

  function asked(after) {
    return {
      limit: PAGE,
      after,
      from: period.value ? Math.floor(Date.now() / 1000) - Number(period.value) : undefined,
      model: model.value,
      key: key.value,
      errors: show.value === "errors" ? true : undefined,
    };
  }

  async function load() {
    loading.abort();
    loading = new AbortController();
    const current = loading.signal;
    erase.hidden = !stored();
    try {
      const page = await api("GET", stored() ? "logs" : "requests", {
        query: asked(),
        signal: AbortSignal.any([signal, current]),
      });
      place.replaceChildren(page.data.length ? listed(page) : nothing());
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, load));
    }
  }

  function nothing() {
    if (stored())
      return empty(
        "list",
        "Nothing is stored",
        "A key stores inputs or outputs only if you turn that on in its settings.",
        h("a", { class: "button", href: "#/keys" }, "API keys"),
      );
    if (show.value || period.value || model.value || key.value)
      return empty("list", "No request matches", "Choose a longer time, or fewer filters.");
    return empty(
      "list",
      "No requests yet",
      "They are here a second or two after they end.",
      h("a", { class: "button primary", href: "#/playground" }, "Try a model"),
    );
  }

  function listed(page) {
    const columns = stored() ? storedColumns(names) : requestColumns(names);
    const framed = table(stored() ? "Stored content" : "Requests", columns, page.data);
    const more = button("Show more", { hidden: !page.has_more });
    let last = page.last_id;
    more.addEventListener("click", async () => {
      more.disabled = true;
      try {
        const next = await api("GET", stored() ? "logs" : "requests", { query: asked(last), signal });
        framed.querySelector("tbody").append(
          ...next.data.map((row) =>
            h(
              "tr",
              { role: "row" },
              columns.map((column) => cell(column, row)),
            ),
          ),
        );
        last = next.last_id;
        more.hidden = !next.has_more;
      } catch (error) {
        if (error.name !== "AbortError") toast(error.message, "danger");
      }
      more.disabled = false;
    });
    return h("div", { class: "stack" }, framed, h("div", { class: "centered" }, more));
  }

  async function eraseAll() {
    const from = asked().from ?? 0;
    const words = PERIODS.find(([value]) => value === period.value)[1].toLowerCase();
    const done = await confirm(
      "Delete stored content?",
      [
        h(
          "p",
          null,
          `All inputs and outputs stored of requests that ended in this time: ${words}, of all models and keys.`,
        ),
        h("p", null, "The requests and their costs stay. This cannot be undone."),
      ],
      "Delete",
      () => api("DELETE", "logs", { query: { from } }),
    );
    if (!done) return;
    toast("Stored content was deleted.");
    await load();
  }

  void start();
  return [heading("Requests", "One line for each generation, with what it cost.", erase), filters, place];
}

function offer(control, options, value) {
  control.append(...options.map(([key, text]) => h("option", { value: key }, text)));
  if (value && !options.some(([key]) => key === value)) control.append(h("option", { value }, value));
  control.value = value;
}

const link = (row, seconds) =>
  h("a", { href: `#/requests/${encodeURIComponent(row.id)}`, class: "row-link" }, time(seconds));
const keyName = (names, row) => names.get(row.key_id) ?? h("code", null, row.key_id);

/** The status, as a word where a number says little. */
export function statusBadge(request) {
  if (request.ending === "client_gone" || request.status === 499) return badge("left early", "warn");
  if (request.status >= 400) return badge(String(request.status), "danger");
  if (request.ending && request.ending !== "completed") return badge("broke off", "danger");
  return badge(String(request.status), "ok");
}

const requestColumns = (names) => [
  { label: "Time", kind: "title", cell: (row) => link(row, row.created_at) },
  { label: "Model", cell: (row) => row.model },
  { label: "Key", cell: (row) => keyName(names, row) },
  { label: "Status", cell: statusBadge },
  {
    label: "Tokens",
    align: "number",
    cell: (row) => [
      count(row.usage.prompt_tokens),
      h("span", { class: "quiet" }, " in, "),
      count(row.usage.completion_tokens),
      h("span", { class: "quiet" }, " out"),
    ],
  },
  { label: "Duration", align: "number", cell: (row) => milliseconds(row.duration_ms) },
  { label: "Cost", align: "number", cell: (row) => usd(row.cost_usd) },
];

const storedColumns = (names) => [
  { label: "Time", kind: "title", cell: (row) => link(row, row.created_at) },
  { label: "Model", cell: (row) => row.model },
  { label: "Key", cell: (row) => keyName(names, row) },
  { label: "Status", cell: statusBadge },
  { label: "Stored", cell: (row) => [row.has_input && badge("input"), row.has_output && badge("output")] },
  {
    label: "Size",
    align: "number",
    cell: (row) => bytes((row.has_input ? row.input_bytes : 0) + (row.has_output ? row.output_bytes : 0)),
  },
  { label: "Deletes itself", cell: (row) => time(row.expires_at, { relative: true }) },
];
