// Balance, spend by day, and what it went to.

import { all, api, csv } from "./api.js";
import { spendChart } from "./chart.js";
import { h } from "./dom.js";
import { count, day, plural, usd, usdText } from "./format.js";
import { button, card, download, empty, heading, select, skeleton, table, toast, trouble } from "./ui.js";

const RANGES = [
  ["7", "Last 7 days"],
  ["30", "Last 30 days"],
  ["90", "Last 90 days"],
];
const DAY_S = 86400;

export function usageView({ signal }) {
  const money = h("div", null, skeleton(1, "figures-room"));
  const place = h("div", { class: "stack" }, skeleton(1, "chart-room"));
  const range = select("range", RANGES, "30", { "aria-label": "Time", onchange: () => load() });
  const save = button("Download CSV", { symbol: "download", onclick: () => saveCsv() });

  async function load() {
    void loadBalance();
    try {
      const query = { from: firstDay(Number(range.value)) };
      const [byDay, byModel, keys] = await Promise.all([
        api("GET", "usage", { query: { ...query, group_by: "day" }, signal }),
        api("GET", "usage", { query: { ...query, group_by: "model,key" }, signal }),
        all("keys", { query: { include_revoked: true }, signal }),
      ]);
      const names = new Map(keys.map((key) => [key.id, key.name]));
      place.replaceChildren(...shown(byDay, byModel, names, Number(range.value)));
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, load));
    }
  }

  async function loadBalance() {
    try {
      money.replaceChildren(standing(await api("GET", "balance", { signal })));
    } catch (error) {
      if (error.name !== "AbortError") money.replaceChildren(trouble(error, loadBalance));
    }
  }

  async function saveCsv() {
    save.disabled = true;
    try {
      const from = firstDay(Number(range.value));
      download(`usage-from-${from}.csv`, await csv("usage", { from, group_by: "day,model,key" }), "text/csv");
    } catch (error) {
      toast(error.message, "danger");
    }
    save.disabled = false;
  }

  void load();
  return [
    heading("Usage", "What you have, and what it was spent on. Sums are exact, and days are UTC.", range, save),
    money,
    place,
  ];
}

function standing(balance) {
  const figure = (label, value, note, big = false) =>
    h(
      "div",
      { class: big ? "figure big" : "figure" },
      h("dt", null, label),
      h("dd", null, usd(value, { down: big }), note && h("span", { class: "note" }, note)),
    );
  const held = /[1-9]/.test(balance.held_usd)
    ? [usd(balance.held_usd), " more is reserved for requests"]
    : "";
  const grace = /[1-9]/.test(balance.grace_usd) ? ["it may go ", usdText(balance.grace_usd), " below zero"] : "";
  const out = balance.available_usd.startsWith("-") || !/[1-9]/.test(balance.available_usd);
  return h(
    "section",
    { "aria-label": "Balance" },
    h(
      "dl",
      { class: "figures" },
      figure("Available", balance.available_usd, [held, grace].filter(Boolean).map((part, index) => [index > 0 && "; ", part]), true),
      figure("Spent today", balance.spent_today_usd),
      figure("Spent this month", balance.spent_this_month_usd),
      figure("Credits so far", balance.credits_usd),
    ),
    out &&
      h(
        "p",
        { class: "notice warn" },
        "There is nothing left to spend: requests are refused until credit is added. Ask the operator of this service.",
      ),
  );
}

function shown(byDay, byModel, names, days) {
  if (byDay.total.requests === 0) {
    return [
      empty(
        "chart",
        "Nothing spent in this time",
        "Requests are here a second or two after they end.",
        h("a", { class: "button primary", href: "#/playground" }, "Try a model"),
      ),
    ];
  }
  const everyDay = filled(byDay.data, days);
  return [
    card(
      "Spend by day",
      h("p", { class: "card-note" }, usd(byDay.total.cost_usd), ` for ${plural(byDay.total.requests, "request")}`),
      spendChart(everyDay),
      dayTable(everyDay),
    ),
    card("By model and key", breakdown(byModel, names)),
  ];
}

function dayTable(rows) {
  return h(
    "details",
    { class: "as-table" },
    h("summary", null, "The same as a table"),
    table(
      "Spend by day",
      [
        {
          label: "Day",
          cell: (row) =>
            h("time", { datetime: new Date(row.start_time * 1000).toISOString().slice(0, 10) }, day(row.start_time)),
        },
        { label: "Requests", align: "number", cell: (row) => count(row.requests) },
        { label: "Cost", align: "number", cell: (row) => usd(row.cost_usd) },
      ],
      rows.filter((row) => row.requests > 0).reverse(),
    ),
  );
}

function breakdown(list, names) {
  const rows = [...list.data].sort((a, b) => Number(b.cost_usd) - Number(a.cost_usd));
  const refunds = rows.some((row) => /[1-9]/.test(row.refunded_usd));
  return table(
    "Usage by model and key",
    [
      { label: "Model", kind: "title", cell: (row) => h("strong", null, row.model) },
      { label: "Key", cell: (row) => names.get(row.key_id) ?? h("code", null, row.key_id) },
      {
        label: "Requests",
        align: "number",
        cell: (row) => [
          count(row.requests),
          row.errors > 0 && h("span", { class: "sub" }, plural(row.errors, "error")),
        ],
      },
      {
        label: "Prompt",
        align: "number",
        cell: (row) => [
          count(row.prompt_tokens),
          row.cached_tokens > 0 && h("span", { class: "sub" }, `${count(row.cached_tokens)} cached`),
        ],
      },
      {
        label: "Completion",
        align: "number",
        cell: (row) => [
          count(row.completion_tokens),
          row.reasoning_tokens > 0 && h("span", { class: "sub" }, `${count(row.reasoning_tokens)} reasoning`),
        ],
      },
      { label: "Cost", align: "number", cell: (row) => usd(row.cost_usd) },
      ...(refunds ? [{ label: "Refunded", align: "number", cell: (row) => usd(row.refunded_usd) }] : []),
    ],
    rows,
  );
}

/** The UTC day with which a time of so many days begins, today included. */
function firstDay(days) {
  return new Date(Date.now() - (days - 1) * DAY_S * 1000).toISOString().slice(0, 10);
}

/** One row for each day, also for those on which nothing was spent. */
function filled(rows, days) {
  const known = new Map(rows.map((row) => [row.start_time, row]));
  const first = Date.parse(`${firstDay(days)}T00:00:00Z`) / 1000;
  return Array.from({ length: days }, (_, index) => {
    const start = first + index * DAY_S;
    return known.get(start) ?? { start_time: start, requests: 0, cost_usd: "0.00" };
  });
}
