// Bars of what each day cost. Heights are rounded for the eye; what is written beside them is exact.

import { h, s } from "./dom.js";
import { aboutUsd, day, plural, shortDay, usdText } from "./format.js";

const HEIGHT = 220;
const TOP = 12;
const BOTTOM = 26;
const LEFT = 64;
const GRID = 3;

/** rows: every day in order, {start_time, cost_usd, requests}. */
export function spendChart(rows) {
  const values = rows.map((row) => Math.max(0, Number(row.cost_usd)));
  const top = ceiling(Math.max(...values));
  const readout = h("p", { class: "readout", "aria-live": "polite" }, "Point at a day, or use the arrow keys.");
  const frame = h("div", {
    class: "chart",
    tabindex: "0",
    role: "group",
    "aria-label": "Spend by day, as bars. The arrow keys go from day to day.",
  });
  let bars = [];
  let current = -1;

  function draw(width) {
    const step = (width - LEFT) / rows.length;
    const thick = Math.max(1, Math.min(36, step * 0.72));
    const x = (index) => LEFT + index * step + (step - thick) / 2;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (top ? value / top : 0));
    const grid = Array.from({ length: GRID + 1 }, (_, line) => {
      const value = (top / GRID) * line;
      return [
        s("line", { class: line ? "grid" : "grid base", x1: LEFT, x2: width, y1: y(value), y2: y(value) }),
        s("text", { class: "tick", x: LEFT - 10, y: y(value) + 4, "text-anchor": "end" }, aboutUsd(value)),
      ];
    });
    bars = values.map((value, index) => {
      const height = value > 0 ? Math.max(2, y(0) - y(value)) : 0;
      return s("rect", {
        class: "bar",
        x: x(index),
        y: y(0) - height,
        width: thick,
        height,
        rx: Math.min(3, thick / 3),
      });
    });
    const every = Math.ceil(rows.length / Math.max(2, Math.floor((width - LEFT) / 90)));
    const labels = rows.flatMap((row, index) =>
      index % every === 0
        ? [
            s(
              "text",
              { class: "tick", x: x(index) + thick / 2, y: HEIGHT - 6, "text-anchor": "middle" },
              shortDay(row.start_time),
            ),
          ]
        : [],
    );
    frame.replaceChildren(
      s("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" }, grid, bars, labels),
    );
    mark(current);
  }

  function mark(index) {
    bars[current]?.classList.remove("on");
    current = index;
    if (index < 0) return;
    bars[index]?.classList.add("on");
    const row = rows[index];
    readout.replaceChildren(
      h("strong", null, day(row.start_time)),
      ` ${usdText(row.cost_usd)}, ${plural(row.requests, "request")}`,
    );
  }

  function point(event) {
    const box = frame.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * rows.length);
    if (index >= 0 && index < rows.length && index !== current) mark(index);
  }

  frame.addEventListener("pointermove", point);
  frame.addEventListener("pointerdown", point);
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    mark(Math.max(0, Math.min(rows.length - 1, current < 0 ? rows.length - 1 : current + step)));
  });
  new ResizeObserver(([entry]) => draw(Math.max(240, Math.floor(entry.contentRect.width)))).observe(frame);
  return h("div", null, readout, frame);
}

/** The next round number, so that the lines of the grid are readable. */
function ceiling(value) {
  if (value <= 0) return 0;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1.2, 1.5, 3, 4.5, 6, 7.5, 9, 12].map((factor) => factor * unit).find((round) => round >= value);
}
