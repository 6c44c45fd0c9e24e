// Numbers, money and moments as people read them. Money comes as exact decimal texts and stays text.

import { h } from "./dom.js";

const WHOLE = new Intl.NumberFormat("en-US");
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const SECONDS = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UTC = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
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

const DIGITS = 4; // of an amount below a dollar, from its first that is not zero

/** "-1234.5" -> "-$1,234.50": exact, with cents at least. */
export function usdText(text) {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = text.replace("-", "").split(".");
  const cents = fraction.replace(/0+$/, "").padEnd(2, "0");
  return `${negative ? "-" : ""}$${WHOLE.format(BigInt(whole))}.${cents}`;
}

/** Cut where people stop reading: cents above a dollar, four digits below. Down: never more than there is. */
function rounded(text, down) {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = text.replace("-", "").split(".");
  const lead = /^0*/.exec(fraction)[0].length;
  const places = /[1-9]/.test(whole) ? 2 : Math.max(2, lead + DIGITS);
  if (fraction.length <= places) return text;
  const up = down ? negative : fraction[places] >= "5";
  const digits = BigInt(whole + fraction.slice(0, places)) + (up ? 1n : 0n);
  const all = String(digits).padStart(places + 1, "0");
  return `${negative ? "-" : ""}${all.slice(0, -places)}.${all.slice(-places)}`;
}

/** An amount with as many digits as say something; all of them for those who point at it. */
export function usd(text, { down = false } = {}) {
  const exact = usdText(text);
  const shown = usdText(rounded(text, down));
  return h("span", { class: "usd", title: shown === exact ? null : `${exact} exactly` }, shown);
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

/** A moment in the reader's own time; for those who point at it also in UTC, which bills are made by. */
export function time(unixSeconds, { relative = false } = {}) {
  const here = SECONDS.format(unixSeconds * 1000);
  const utc = `${UTC.format(unixSeconds * 1000)} UTC`;
  return h(
    "time",
    { datetime: new Date(unixSeconds * 1000).toISOString(), title: relative ? `${here} (${utc})` : utc },
    relative ? ago(unixSeconds) : here,
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
