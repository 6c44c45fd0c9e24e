// One form for a new key and for changes of one.

import { api } from "./api.js";
import { open } from "./dialogs.js";
import { h } from "./dom.js";
import { moment } from "./format.js";
import { changes, clear, complain, read } from "./key_values.js";
import { button, field, select, toggle, trouble } from "./ui.js";

const EXPIRIES = [
  ["", "Never"],
  ["7", "In 7 days"],
  ["30", "In 30 days"],
  ["90", "In 90 days"],
  ["365", "In a year"],
  ["at", "At a time of my choice"],
];
const LIMIT_KINDS = [
  ["none", "No limits"],
  ["tier", "A tier"],
  ["custom", "My own numbers"],
];

/** Resolves to the key as answered (a new one with its secret), or to nothing where it was cancelled. */
export function keyForm(key, signal) {
  return open(
    key ? `Edit “${key.name}”` : "Create an API key",
    (close) => {
      const problem = h("div");
      const submit = h("button", { type: "submit", class: "button primary" }, key ? "Save changes" : "Create key");
      const form = h(
        "form",
        { novalidate: true },
        field(
          "Name",
          h("input", {
            name: "name",
            value: key?.name ?? "",
            maxlength: "100",
            required: true,
            autocomplete: "off",
            autofocus: true,
            placeholder: "laptop",
          }),
          {
            hint: "What it is for, so that you know it again.",
          },
        ),
        scopes(key),
        expiry(key),
        models(key, signal),
        limits(key),
        logging(key),
        problem,
        h("div", { class: "dialog-actions" }, button("Cancel", { onclick: () => close() }), submit),
      );
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        problem.replaceChildren();
        clear(form);
        const wanted = read(form, key);
        const body = key ? changes(key, wanted) : wanted;
        if (key && Object.keys(body).length === 0) return close();
        submit.disabled = true;
        try {
          close(
            await (key ? api("PATCH", `keys/${encodeURIComponent(key.id)}`, { body }) : api("POST", "keys", { body })),
          );
        } catch (error) {
          if (!complain(form, error)) problem.replaceChildren(trouble(error));
          submit.disabled = false;
        }
        return undefined;
      });
      return form;
    },
    { kind: "form-dialog" },
  );
}

function scopes(key) {
  const has = (scope) => (key ? key.scopes.includes(scope) : scope === "inference");
  return h(
    "fieldset",
    null,
    h("legend", null, "It may"),
    h(
      "label",
      { class: "check" },
      h("input", { type: "checkbox", name: "inference", checked: has("inference") }),
      h("span", null, "Use models", h("small", null, "send chats and get answers, at your cost")),
    ),
    h(
      "label",
      { class: "check" },
      h("input", { type: "checkbox", name: "management", checked: has("management") }),
      h("span", null, "Manage the account", h("small", null, "make keys, see usage and logs, sign in here")),
    ),
    h("p", { class: "field-error", "data-for": "scopes", "aria-live": "polite" }),
  );
}

function expiry(key) {
  const at = h("input", { type: "datetime-local", name: "expires_time", "aria-label": "Expires at", hidden: true });
  const options = key?.expires_at ? [["keep", moment(key.expires_at)], ...EXPIRIES] : EXPIRIES;
  const choice = select("expires", options, key?.expires_at ? "keep" : "");
  choice.addEventListener("change", () => {
    at.hidden = choice.value !== "at";
    if (!at.hidden) at.focus();
  });
  return h("div", { class: "stack" }, field("Expires", choice), at);
}

function models(key, signal) {
  const list = h("div", { class: "choices", hidden: true, role: "group", "aria-label": "Models that it may use" });
  const kind = select(
    "models_kind",
    [
      ["all", "All models"],
      ["some", "Only these"],
    ],
    key?.models ? "some" : "all",
  );
  const show = () => (list.hidden = kind.value !== "some");
  const draw = (ids) =>
    list.replaceChildren(
      ...ids.map((id) =>
        h(
          "label",
          { class: "check" },
          h("input", { type: "checkbox", name: "model", value: id, checked: key?.models?.includes(id) ?? false }),
          h("span", null, id),
        ),
      ),
    );
  kind.addEventListener("change", show);
  draw(key?.models ?? []);
  show();
  api("GET", "models", { signal })
    .then((found) => draw([...new Set([...found.data.map((model) => model.id), ...(key?.models ?? [])])]))
    .catch(() => undefined); // the form works without: all models, or those that it has
  return h(
    "div",
    { class: "stack" },
    field("Models", kind),
    list,
    h("p", { class: "field-error", "data-for": "models", "aria-live": "polite" }),
  );
}

function limits(key) {
  const had = key?.limits;
  const kind = select("limit_kind", LIMIT_KINDS, !had ? "none" : had.tier && had.tier !== "custom" ? "tier" : "custom");
  const tier = h("input", {
    name: "tier",
    list: "tiers",
    value: had?.tier && had.tier !== "custom" ? had.tier : "developer",
    autocomplete: "off",
  });
  const number = (name, label) =>
    field(
      label,
      h("input", {
        name,
        type: "number",
        min: "1",
        step: "1",
        inputmode: "numeric",
        value: had?.[name] ?? "",
        placeholder: "no limit",
      }),
    );
  const tiers = h(
    "div",
    null,
    field("Tier", tier, { hint: "As the operator of this service named them." }),
    h("datalist", { id: "tiers" }, h("option", { value: "developer" }), h("option", { value: "production" })),
  );
  const numbers = h(
    "div",
    { class: "columns three" },
    number("requests_per_minute", "Requests per minute"),
    number("tokens_per_minute", "Tokens per minute"),
    number("concurrent_requests", "Open at once"),
  );
  const show = () => {
    tiers.hidden = kind.value !== "tier";
    numbers.hidden = kind.value !== "custom";
  };
  kind.addEventListener("change", show);
  show();
  return h(
    "details",
    { open: Boolean(had || key?.spend_limit) },
    h("summary", null, "Limits"),
    field("How fast it may go", kind),
    tiers,
    numbers,
    h(
      "div",
      { class: "columns two" },
      field(
        "Spend at most, in USD",
        h("input", {
          name: "amount_usd",
          inputmode: "decimal",
          value: key?.spend_limit?.amount_usd ?? "",
          placeholder: "no limit",
          autocomplete: "off",
        }),
        { optional: true },
      ),
      field(
        "In each",
        select(
          "period",
          [
            ["month", "month (UTC)"],
            ["day", "day (UTC)"],
          ],
          key?.spend_limit?.period ?? "month",
        ),
      ),
    ),
  );
}

function logging(key) {
  return h(
    "details",
    { open: Boolean(key?.log_inputs || key?.log_outputs) },
    h("summary", null, "Stored content"),
    h(
      "p",
      { class: "hint" },
      "Off unless you turn it on. What is stored can be read under Requests, and deletes itself.",
    ),
    toggle("log_inputs", "Store inputs", "What your programs send.", key?.log_inputs ?? false),
    toggle("log_outputs", "Store outputs", "What the models answer.", key?.log_outputs ?? false),
    field(
      "Delete after days",
      h("input", {
        name: "retention_days",
        type: "number",
        min: "1",
        step: "1",
        inputmode: "numeric",
        value: key?.retention_days ?? "",
        placeholder: "the operator's default",
      }),
      { optional: true },
    ),
  );
}
