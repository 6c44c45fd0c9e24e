// Numbers, money and moments as people read them. Money comes as exact decimal texts and stays text.

import { h } from "./dom.js";

const WHOLE = new Intl.NumberFormat("en-US");
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const SECONDS = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

export const count = (value) => WHOLE.format(value);
export const compact = (value) => COMPACT.format(value);
export const day = (unixSeconds) => DAY.format(unixSeconds * 1000);
export const shortDay = (unixSeconds) => SHORT_DAY.format(unixSeconds * 1000);
export const moment = (unixSeconds) => MOMENT.format(unixSeconds * 1000);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** "-1234.5678" -> ["-$1,234.56", "78"]: dollars and cents, and what is finer. */
function parts(text) {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = text.replace("-", "").split(".");
  const cents = fraction.padEnd(2, "0");
  return [
    `${negative ? "-" : ""}$${WHOLE.format(BigInt(whole))}.${cents.slice(0, 2)}`,
    cents.slice(2).replace(/0+$/, ""),
  ];
}

export const usdText = (text) => parts(text).join("");

/** An exact amount; what is finer than a cent is there and quiet. */
export function usd(text) {
  const [main, rest] = parts(text);
  const says = /[1-9]/.test(main);
  return h(
    "span",
    { class: "usd" },
    h("span", { class: says || !rest ? "" : "quiet" }, main),
    rest && h("span", { class: says ? "quiet" : "" }, rest),
  );
}

/** "0.0000001" USD per token -> "$0.10" per million tokens, by moving the point: exact. */
export function perMillion(text) {
  const [whole, fraction = ""] = text.split(".");
  const digits = fraction.padEnd(6, "0");
  const rest = digits.slice(6).replace(/0+$/, "");
  return usdText(`${(whole + digits.slice(0, 6)).replace(/^0+(?=\d)/, "")}${rest ? `.${rest}` : ""}`);
}

/** An estimate, which is never shown as exact. */
export function aboutUsd(value) {
  if (value === 0) return "$0.00";
  const digits = Math.max(2, Math.min(9, 1 - Math.floor(Math.log10(value))));
  return `$${value.toFixed(digits)}`;
}

export function ago(unixSeconds) {
  const away = unixSeconds - Date.now() / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(away) >= size) return RELATIVE.format(Math.trunc(away / size), unit);
  }
  return away > 0 ? "in less than a minute" : "just now";
}

/** A moment in a table: how long ago, and exactly when for those who point at it. */
export function time(unixSeconds, { relative = false } = {}) {
  const exact = SECONDS.format(unixSeconds * 1000);
  return h(
    "time",
    { datetime: new Date(unixSeconds * 1000).toISOString(), title: exact },
    relative ? ago(unixSeconds) : moment(unixSeconds),
  );
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${value} ms` : `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s`;
}

export function bytes(value) {
  if (value < 1024) return plural(value, "byte");
  return value < 1048576 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1048576).toFixed(1)} MiB`;
}
