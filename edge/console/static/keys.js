// API keys: see, make, change, rotate, revoke.

import { all, api } from "./api.js";
import { confirm, open, showSecret } from "./dialogs.js";
import { h } from "./dom.js";
import { time, usdText } from "./format.js";
import { keyForm } from "./key_form.js";
import { badge, button, empty, field, heading, select, skeleton, table, toast, trouble } from "./ui.js";

const TONES = { active: "ok", expired: "warn", revoked: "neutral" };
const OVERLAPS = [
  ["86400", "for one day"],
  ["3600", "for one hour"],
  ["604800", "for seven days"],
  ["2592000", "for thirty days"],
  ["0", "not at all: it ends now"],
];

export function keysView({ signal, who }) {
  const place = h("div", null, skeleton());
  const revokedToo = h("input", { type: "checkbox", id: "revoked-too", onchange: () => load() });
  const create = button("Create key", { kind: "primary", symbol: "plus", onclick: () => make() });

  async function load() {
    try {
      const keys = await all("keys", { query: { include_revoked: revokedToo.checked || undefined }, signal });
      const held = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      place.replaceChildren(keys.length ? listed(keys) : nothing());
      if (held) (place.querySelector(`[aria-label="${CSS.escape(held)}"]`) ?? document.querySelector("main h1")).focus();
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(trouble(error, load));
    }
  }

  const nothing = () =>
    empty(
      "key",
      "No keys yet",
      "A key lets your programs use the models.",
      button("Create key", { kind: "primary", onclick: () => make() }),
    );

  function listed(keys) {
    return table(
      "API keys",
      [
        {
          label: "Name",
          kind: "title",
          cell: (key) => [
            h("strong", null, key.name),
            h("code", { class: "sub nowrap" }, key.redacted_value),
            key.id === who.key_id && badge("you are using it", "accent"),
          ],
        },
        { label: "Status", cell: (key) => badge(key.status, TONES[key.status]) },
        { label: "May", cell: permissions },
        { label: "Limits", cell: limits },
        {
          label: "Last used",
          cell: (key) =>
            key.last_used_at === null
              ? h("span", { class: "quiet" }, "never")
              : time(key.last_used_at, { relative: true }),
        },
        { label: "Expires", cell: expiry },
        { label: "Actions", hideLabel: true, kind: "row-actions", cell: (key) => actions(key) },
      ],
      keys,
      { rowClass: (key) => (key.status === "active" ? "" : "faded") },
    );
  }

  function actions(key) {
    if (key.status === "revoked") return null;
    const act = (label, onclick, kind = "quiet") =>
      button(label, { kind, onclick, "aria-label": `${label} ${key.name}` });
    return [
      act("Edit", () => edit(key)),
      key.status === "active" && act("Rotate", () => rotate(key)),
      act("Revoke", () => revoke(key), "quiet danger-text"),
    ];
  }

  async function make() {
    const made = await keyForm(null, signal);
    if (!made) return;
    void load();
    await showSecret(`Key “${made.name}” is ready`, made.secret, "Copy it now: this is the only time it is shown.");
    create.focus();
  }

  async function edit(key) {
    const changed = await keyForm(key, signal);
    if (!changed) return;
    toast(`Key “${changed.name}” was changed.`);
    await load();
  }

  async function rotate(key) {
    const overlap = select("overlap", OVERLAPS, "86400");
    const made = await open(`Rotate “${key.name}”`, (close) => {
      const problem = h("div");
      const go = h("button", { type: "submit", class: "button primary" }, "Make the new key");
      const onsubmit = async (event) => {
        event.preventDefault();
        go.disabled = true;
        try {
          close(
            await api("POST", `keys/${encodeURIComponent(key.id)}/rotate`, {
              body: { overlap_seconds: Number(overlap.value) },
            }),
          );
        } catch (error) {
          problem.replaceChildren(trouble(error));
          go.disabled = false;
        }
      };
      return h(
        "form",
        { onsubmit },
        h("p", null, "You get a new key with the same permissions and limits. Give your programs time to change over."),
        field("The old key goes on working", overlap, {
          hint:
            key.id === who.key_id
              ? "You are signed in with this key: sign in again with the new one before it ends."
              : undefined,
        }),
        problem,
        h("div", { class: "dialog-actions" }, button("Cancel", { onclick: () => close() }), go),
      );
    });
    if (!made) return;
    void load();
    await showSecret(`The new “${made.name}” is ready`, made.secret, "Copy it now: this is the only time it is shown.");
  }

  async function revoke(key) {
    const revoked = await confirm(
      `Revoke “${key.name}”?`,
      [
        h(
          "p",
          null,
          "Programs that use ",
          h("code", null, key.redacted_value),
          " stop working within a second. This cannot be undone.",
        ),
        key.id === who.key_id &&
          h("p", null, h("strong", null, "You are signed in with this key and will be signed out.")),
      ],
      "Revoke key",
      () => api("DELETE", `keys/${encodeURIComponent(key.id)}`),
    );
    if (!revoked) return;
    toast(`Key “${key.name}” was revoked.`);
    await load();
  }

  void load();
  return [
    heading(
      "API keys",
      "Give each program its own key, so that you can change or revoke one without the others.",
      create,
    ),
    place,
    h(
      "p",
      { class: "below" },
      h("label", { class: "check", for: "revoked-too" }, revokedToo, h("span", null, "Show revoked keys")),
    ),
  ];
}

function permissions(key) {
  const models =
    key.models === null
      ? null
      : h(
          "span",
          { class: "sub", title: key.models.join(", ") },
          key.models.length === 1 ? key.models[0] : `${key.models.length} models`,
        );
  return [
    h("span", null, key.scopes.map((scope) => ({ inference: "use models", management: "manage" })[scope]).join(", ")),
    models,
    (key.log_inputs || key.log_outputs) &&
      h(
        "span",
        { class: "sub" },
        `stores ${[key.log_inputs && "inputs", key.log_outputs && "outputs"].filter(Boolean).join(" and ")}`,
      ),
  ];
}

function limits(key) {
  const lines = [];
  if (key.limits?.tier && key.limits.tier !== "custom") lines.push(`tier ${key.limits.tier}`);
  else if (key.limits) {
    if (key.limits.requests_per_minute)
      lines.push(`${key.limits.requests_per_minute.toLocaleString("en-US")} requests/min`);
    if (key.limits.tokens_per_minute) lines.push(`${key.limits.tokens_per_minute.toLocaleString("en-US")} tokens/min`);
    if (key.limits.concurrent_requests) lines.push(`${key.limits.concurrent_requests.toLocaleString("en-US")} at once`);
  }
  if (key.spend_limit) lines.push(`${usdText(key.spend_limit.amount_usd)} a ${key.spend_limit.period}`);
  return lines.length
    ? lines.map((line) => h("span", { class: "line nowrap" }, line))
    : h("span", { class: "quiet" }, "none");
}

function expiry(key) {
  if (key.status === "revoked") return ["revoked ", time(key.revoked_at, { relative: true })];
  return key.expires_at === null ? h("span", { class: "quiet" }, "never") : time(key.expires_at, { relative: true });
}
