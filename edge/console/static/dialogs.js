// Modal dialogs: the browser holds the focus inside, and gives it back when they close.

import { freshId, h } from "./dom.js";
import { button, copyButton, trouble } from "./ui.js";

/** Opens a dialog with these contents; it is gone from the page when it closes. Resolves to what it closed with. */
export function open(title, build, { kind = "", dismissible = true } = {}) {
  const id = freshId("dialog");
  const body = h("div", { class: "dialog-body" });
  const dialog = h("dialog", { class: kind, "aria-labelledby": id }, h("h2", { id, tabindex: "-1" }, title), body);
  return new Promise((resolve) => {
    let result;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    dialog.addEventListener("cancel", (event) => {
      if (!dismissible) event.preventDefault();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    body.append(...[build(close, dialog)].flat());
    document.body.append(dialog);
    dialog.showModal();
    (dialog.querySelector("[autofocus]") ?? dialog.querySelector("h2")).focus();
  });
}

/** Asks before something that cannot be undone. `act` does it; the dialog stays open with the reason where it fails. */
export function confirm(title, text, label, act) {
  return open(title, (close) => {
    const problem = h("div");
    const go = button(label, { kind: "danger" });
    go.addEventListener("click", async () => {
      go.disabled = true;
      try {
        await act();
        close(true);
      } catch (error) {
        problem.replaceChildren(trouble(error));
        go.disabled = false;
      }
    });
    return [
      h("div", { class: "prose" }, text),
      problem,
      h("div", { class: "dialog-actions" }, button("Cancel", { autofocus: true, onclick: () => close(false) }), go),
    ];
  });
}

/** The only time at which a secret is on the page. Escape does not close it: there is no second look. */
export async function showSecret(title, secret, text) {
  await open(
    title,
    (close) => [
      h("p", null, text),
      h(
        "div",
        { class: "secret" },
        h("code", { id: "new-secret", tabindex: "0", "aria-label": "The new API key" }, secret),
        copyButton("Copy", () => secret, { autofocus: true, class: "button primary" }),
      ),
      h(
        "p",
        { class: "hint" },
        "Keep it where you keep passwords. Nobody can show it a second time, not even the operator.",
      ),
      h("div", { class: "dialog-actions" }, button("I have stored it", { onclick: () => close() })),
    ],
    { kind: "secret-dialog", dismissible: false },
  );
}
