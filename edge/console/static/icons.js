import { s } from "./dom.js";

const PATHS = {
  key: ["M12.5 3.5a4 4 0 1 1-3.4 6.1L3.5 15v2h3v-2h2v-2h1.6l1-1", "M13.6 6.4h.01"],
  chart: ["M3.5 16.5h13", "M6 13.5v-4", "M10 13.5v-9", "M14 13.5v-6"],
  list: ["M7 5.5h9.5", "M7 10h9.5", "M7 14.5h9.5", "M3.6 5.5h.01", "M3.6 10h.01", "M3.6 14.5h.01"],
  models: ["M10 2.8l6.5 3.6v7.2L10 17.2l-6.5-3.6V6.4z", "M3.7 6.5L10 10l6.3-3.5", "M10 10v7"],
  chat: ["M3.5 4.5h13v9h-7l-3.5 3v-3h-2.5z"],
  sun: [
    "M10 6.8a3.2 3.2 0 1 1 0 6.4 3.2 3.2 0 0 1 0-6.4z",
    "M10 2v1.6M10 16.4V18M2 10h1.6M16.4 10H18M4.3 4.3l1.2 1.2M14.5 14.5l1.2 1.2M15.7 4.3l-1.2 1.2M5.5 14.5l-1.2 1.2",
  ],
  moon: ["M16.2 12A6.8 6.8 0 0 1 8 3.8a6.8 6.8 0 1 0 8.2 8.2z"],
  system: ["M3 4h14v9.5H3z", "M7.5 16.5h5"],
  out: ["M8 3.5H4v13h4", "M8.5 10h8", "M13.5 6.8l3.2 3.2-3.2 3.2"],
  plus: ["M10 4v12", "M4 10h12"],
  copy: ["M7 7h9v9.5H7z", "M13 7V3.5H4V13h3"],
  check: ["M4 10.5l4 4 8-9"],
  download: ["M10 3.5v9", "M6.2 9l3.8 3.8L13.8 9", "M4 16.5h12"],
  back: ["M12.5 4.5L7 10l5.5 5.5"],
  alert: ["M10 3.2l7.4 13H2.6z", "M10 8v4", "M10 14.2h.01"],
};

/** A drawing that says nothing to a screen reader: the words beside it do. */
export function icon(name) {
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" },
    PATHS[name].map((d) => s("path", { d })),
  );
}
