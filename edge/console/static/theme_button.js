// Light, dark, or as the system has it.

import { h } from "./dom.js";
import { icon } from "./icons.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
const LOOKS = { system: ["system", "System theme"], light: ["sun", "Light theme"], dark: ["moon", "Dark theme"] };

export function themeButton() {
  const button = h("button", { type: "button", class: "button quiet theme", onclick: () => choose(NEXT[current()]) });

  function choose(theme) {
    try {
      if (theme === "system") localStorage.removeItem("tollgate-theme");
      else localStorage.setItem("tollgate-theme", theme);
    } catch {
      // Storage is off: the choice holds as long as the page does.
    }
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    draw();
  }

  function draw() {
    const [symbol, label] = LOOKS[current()];
    button.replaceChildren(icon(symbol), h("span", null, label));
    button.setAttribute("aria-label", `${label}. Change it`);
  }

  draw();
  return button;
}

const current = () => document.documentElement.dataset.theme ?? "system";
