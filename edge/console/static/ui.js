// The parts that every view is made of.

import { freshId, h } from "./dom.js";
import { icon } from "./icons.js";

const TOAST_MS = 5000;

/** A button. kind: primary, plain, quiet, danger. */
export function button(label, { kind = "plain", symbol, ...props } = {}) {
  return h(
    "button",
    { type: "button", class: `button ${kind}`, ...props },
    symbol && icon(symbol),
    h("span", null, label),
  );
}

export const badge = (text, tone = "neutral") => h("span", { class: `badge ${tone}` }, text);

/** The view's head: its name, what it is for, and what one can do. */
export function heading(title, lede, ...actions) {
  return h(
    "header",
    { class: "view-head" },
    h("div", null, h("h1", { tabindex: "-1" }, title), lede && h("p", { class: "lede" }, lede)),
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}

/** A card with a name. */
export function card(title, ...children) {
  const id = freshId("card");
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** A label, its control, a hint, and the place of its error. `control` gets what ties them together. */
export function field(label, control, { hint, optional = false } = {}) {
  const id = control.id || freshId("field");
  const hintId = `${id}-hint`;
  const errorId = `${id}-error`;
  control.id = id;
  control.setAttribute("aria-describedby", hint ? `${hintId} ${errorId}` : errorId);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label, optional && h("span", { class: "optional" }, " optional")),
    control,
    hint && h("p", { class: "hint", id: hintId }, hint),
    h("p", { class: "field-error", id: errorId, "aria-live": "polite" }),
  );
}

/** A choice among few: `[[value, text], ...]`. */
export function select(name, options, value, props = {}) {
  return h(
    "select",
    { name, ...props },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
}

/** An on/off switch with its words. */
export function toggle(name, label, hint, checked) {
  const id = freshId("toggle");
  return h(
    "div",
    { class: "toggle" },
    h("input", { type: "checkbox", role: "switch", name, id, checked, "aria-describedby": hint && `${id}-hint` }),
    h("div", null, h("label", { for: id }, label), hint && h("p", { class: "hint", id: `${id}-hint` }, hint)),
  );
}

/** A table that becomes a list of cards where there is no room. columns: {label, cell(row), align, wide}. */
export function table(caption, columns, rows, { rowClass } = {}) {
  return h(
    "div",
    { class: "table-frame" },
    h(
      "table",
      { role: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((column) =>
            h(
              "th",
              { role: "columnheader", scope: "col", class: column.align ?? "" },
              column.hideLabel ? h("span", { class: "visually-hidden" }, column.label) : column.label,
            ),
          ),
        ),
      ),
      h(
        "tbody",
        { role: "rowgroup" },
        rows.map((row) =>
          h(
            "tr",
            { role: "row", class: rowClass?.(row) ?? "" },
            columns.map((column) => cell(column, row)),
          ),
        ),
      ),
    ),
  );
}

/** The cell of one row in one column. Where the table is cards, its label stands before its content. */
export function cell(column, row) {
  const { label, hideLabel, align, kind } = column;
  const isLabelled = !hideLabel && kind !== "title";
  const content = column.cell(row);
  return h(
    "td",
    { role: "cell", class: `${align ?? ""} ${kind ?? ""}`, "data-label": isLabelled && label },
    isLabelled ? h("div", null, content) : content,
  );
}

/** Nothing here yet, and what to do about it. */
export function empty(symbol, title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("span", { class: "empty-icon" }, icon(symbol)),
    h("h2", null, title),
    h("p", null, text),
    actions,
  );
}

/** Grey bars where something will be. */
export function skeleton(rows = 4, kind = "") {
  return h(
    "div",
    { class: `skeleton ${kind}`, "aria-busy": "true" },
    h("span", { class: "visually-hidden", role: "status" }, "Loading"),
    Array.from({ length: rows }, () => h("div", { class: "skeleton-row" })),
  );
}

/** What went wrong, and a way on. */
export function trouble(error, retry) {
  return h(
    "div",
    { class: "notice danger", role: "alert" },
    icon("alert"),
    h(
      "div",
      null,
      h("p", { class: "notice-title" }, error.status === 0 ? "No connection" : "This did not work"),
      h("p", null, error.message),
      error.requestId && h("p", { class: "hint" }, "Request id ", h("code", null, error.requestId)),
      retry && button("Try again", { onclick: retry }),
    ),
  );
}

/** A remark. tone: info, warn. */
export const notice = (tone, ...children) =>
  h("div", { class: `notice ${tone}` }, icon("alert"), h("div", null, children));

/** A word about what has happened, for eyes and ears. */
export function toast(text, tone = "ok") {
  const shown = h("div", { class: `toast ${tone}` }, icon(tone === "ok" ? "check" : "alert"), h("span", null, text));
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), TOAST_MS);
}

/** For ears alone. */
export function speak(text) {
  document.getElementById("spoken").textContent = text;
}

/** Copies what `text()` says at that moment. */
export function copyButton(label, text, props = {}) {
  const words = h("span", null, label);
  const copied = async () => {
    try {
      await navigator.clipboard.writeText(text());
      words.textContent = "Copied";
      speak("Copied");
      setTimeout(() => (words.textContent = label), 2000);
    } catch {
      toast("The browser does not let the page copy: select the text and copy it yourself.", "danger");
    }
  };
  return h("button", { type: "button", class: "button plain", onclick: copied, ...props }, icon("copy"), words);
}

/** A file for the customer to keep. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
