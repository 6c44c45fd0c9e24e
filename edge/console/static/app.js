// Starts the page: who is signed in, which view, and the frame around it.

import { session, signedOut } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { dropPlaygroundKey } from "./playground_key.js";
import { signIn } from "./sign_in.js";
import { themeButton } from "./theme_button.js";
import { button, toast, trouble } from "./ui.js";
import { keysView } from "./keys.js";
import { modelsView } from "./models.js";
import { playgroundView } from "./playground.js";
import { requestView } from "./request.js";
import { requestsView } from "./requests.js";
import { usageView } from "./usage.js";

const VIEWS = [
  { path: "keys", label: "API keys", symbol: "key", view: keysView },
  { path: "usage", label: "Usage", symbol: "chart", view: usageView },
  { path: "requests", label: "Requests", symbol: "list", view: requestsView },
  { path: "models", label: "Models", symbol: "models", view: modelsView },
  { path: "playground", label: "Playground", symbol: "chat", view: playgroundView },
];

const app = document.getElementById("app");
let who = null; // the session while somebody is signed in
let leaving = new AbortController(); // ends what the view that is left still waits for
let shown = false; // whether a view was shown before: the first one does not take the focus

async function start() {
  try {
    const found = await session("GET");
    if (found.signed_in) enter(found);
    else showSignIn(found.message ?? "");
  } catch (error) {
    app.replaceChildren(h("main", { class: "sign-in" }, trouble(error, start)));
  }
}

function showSignIn(message) {
  who = null;
  leaving.abort();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  document.title = "Sign in · Tollgate console";
  app.replaceChildren(signIn(enter, message));
  app.querySelector("input").focus();
}

function enter(found) {
  who = found;
  shown = false;
  app.replaceChildren(frame());
  show();
}

function frame() {
  const links = VIEWS.map(({ path, label, symbol }) =>
    h("a", { href: `#/${path}`, "data-path": path }, icon(symbol), h("span", null, label)),
  );
  return [
    h("a", { class: "skip", href: "#main", onclick: skip }, "Skip to content"),
    h(
      "div",
      { class: "frame" },
      h(
        "header",
        { class: "side" },
        h(
          "a",
          { class: "brand", href: "#/keys" },
          h("img", { src: "/console/icon.svg", alt: "", width: "28", height: "28" }),
          h("span", null, "Tollgate"),
        ),
        h("nav", { "aria-label": "Console" }, links),
        h(
          "div",
          { class: "side-foot" },
          themeButton(),
          button("Sign out", { kind: "quiet", symbol: "out", onclick: leave }),
        ),
      ),
      h("main", { id: "main", tabindex: "-1" }),
    ),
  ].reduce((fragment, node) => (fragment.append(node), fragment), document.createDocumentFragment());
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

async function leave() {
  await dropPlaygroundKey();
  try {
    await session("DELETE");
  } catch (error) {
    toast(`You are still signed in. ${error.message}`, "danger"); // the cookie is there as long as no edge ends it
    return;
  }
  showSignIn("You are signed out.");
}

/** Shows what the address names: `#/requests/ID?model=...`. */
function show() {
  if (who === null) return;
  leaving.abort();
  leaving = new AbortController();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const found = VIEWS.find((each) => each.path === name) ?? VIEWS[0];
  const id = name === "requests" && rest.length ? readable(rest.join("/")) : null;
  for (const link of app.querySelectorAll("nav a")) {
    if (link.dataset.path === found.path) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${id === null ? found.label : "Request"} · Tollgate console`;
  const main = document.getElementById("main");
  const context = { signal: leaving.signal, who, query: new URLSearchParams(query) };
  main.className = found.path;
  main.replaceChildren(...[id === null ? found.view(context) : requestView(context, id)].flat());
  if (shown) {
    window.scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
  shown = true;
}

/** What a part of an address means; as it is where it was mistyped. */
function readable(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

window.addEventListener("hashchange", show);
signedOut.addEventListener("signedout", () => {
  if (who === null) return;
  who = null;
  void session("DELETE").catch(() => undefined);
  showSignIn("Your session has ended, or its key was revoked. Sign in again.");
});
void start();
