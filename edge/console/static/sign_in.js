// The door. The key goes into a cookie that no script can read, and out of this page.

import { session } from "./api.js";
import { h } from "./dom.js";
import { themeButton } from "./theme_button.js";
import { field } from "./ui.js";

const WHY = {
  INVALID_API_KEY: "This key does not work: it is mistyped, revoked or expired.",
};

/** The sign-in view; calls `enter` with the session. */
export function signIn(enter, message) {
  const key = h("input", {
    name: "key",
    type: "password",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
    autocapitalize: "none",
    placeholder: "tg_…",
  });
  const submit = h("button", { type: "submit", class: "button primary wide" }, "Sign in");
  const said = h("p", { class: "sign-in-note", role: "status" }, message);
  const place = field("Management key", key, {
    hint: "A key with the management scope. Whoever runs this service gives you the first one.",
  });
  const problem = place.querySelector(".field-error");

  const onsubmit = async (event) => {
    event.preventDefault();
    problem.textContent = "";
    said.textContent = "";
    submit.disabled = true;
    submit.textContent = "Signing in …";
    try {
      const found = await session("POST", { key: key.value });
      key.value = "";
      enter(found);
    } catch (error) {
      problem.textContent = WHY[error.code] ?? error.message;
      key.setAttribute("aria-invalid", "true");
      key.select();
      submit.disabled = false;
      submit.textContent = "Sign in";
    }
  };

  return h(
    "main",
    { class: "sign-in" },
    h(
      "div",
      { class: "sign-in-card" },
      h("img", { src: "/console/icon.svg", alt: "", width: "44", height: "44" }),
      h("h1", null, "Tollgate console"),
      h("p", { class: "lede" }, "Your keys, usage, requests and models."),
      said,
      h("form", { onsubmit }, place, submit),
    ),
    h("div", { class: "sign-in-foot" }, themeButton()),
  );
}
