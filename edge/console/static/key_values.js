// What the form of a key says, in the API's words, and what the API says of it, beside its controls.

const DAY_S = 86400;
// The API's names by the names of controls, where they differ.
const CONTROLS = {
  limits: "limit_kind",
  "limits.tier": "tier",
  spend_limit: "amount_usd",
  "spend_limit.amount_usd": "amount_usd",
  "spend_limit.period": "period",
  expires_at: "expires",
};

/** What the form says, in the API's words. */
export function read(form, key) {
  const value = (name) => form.elements[name].value.trim();
  const number = (name) => (value(name) === "" ? null : Number(value(name)));
  const now = Math.floor(Date.now() / 1000);
  const expires =
    {
      "": () => null,
      keep: () => key.expires_at,
      at: () => Math.floor(new Date(value("expires_time")).getTime() / 1000) || 0,
    }[value("expires")] ?? (() => now + Number(value("expires")) * DAY_S);
  const kind = value("limit_kind");
  const numbers = {
    requests_per_minute: number("requests_per_minute"),
    tokens_per_minute: number("tokens_per_minute"),
    concurrent_requests: number("concurrent_requests"),
  };
  return {
    name: value("name"),
    scopes: ["inference", "management"].filter((scope) => form.elements[scope].checked),
    expires_at: expires(),
    models:
      value("models_kind") === "all"
        ? null
        : [...form.querySelectorAll("input[name=model]:checked")].map((box) => box.value),
    limits:
      kind === "none"
        ? null
        : kind === "tier"
          ? { tier: value("tier") }
          : Object.values(numbers).some((each) => each !== null)
            ? numbers
            : null,
    spend_limit: value("amount_usd") === "" ? null : { amount_usd: value("amount_usd"), period: value("period") },
    log_inputs: form.elements.log_inputs.checked,
    log_outputs: form.elements.log_outputs.checked,
    retention_days: number("retention_days"),
  };
}

/** Only what differs, so that an edit never undoes what somebody else changed meanwhile. */
export function changes(key, wanted) {
  const had = { ...key };
  if (had.limits)
    had.limits = wanted.limits?.tier
      ? { tier: had.limits.tier }
      : {
          requests_per_minute: had.limits.requests_per_minute,
          tokens_per_minute: had.limits.tokens_per_minute,
          concurrent_requests: had.limits.concurrent_requests,
        };
  const same = (name) => JSON.stringify(wanted[name]) === JSON.stringify(had[name]);
  return Object.fromEntries(Object.entries(wanted).filter(([name]) => !same(name)));
}

export function clear(form) {
  for (const place of form.querySelectorAll(".field-error")) place.textContent = "";
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

/** Says what is wrong beside the control that it is about; false where there is none. */
export function complain(form, error) {
  if (!error.param) return false;
  const name = error.param.replace(/[[.]\d+\]?$/, "").replace(/^(models|scopes).*/, "$1");
  const sentence = error.message.replace(/^`[^`]*`:? ?/, "");
  const text = sentence.charAt(0).toUpperCase() + sentence.slice(1);
  const control = form.elements[CONTROLS[name] ?? name.replace("limits.", "")];
  const place = control?.id
    ? document.getElementById(`${control.id}-error`)
    : form.querySelector(`[data-for="${CSS.escape(name)}"]`);
  if (!place) return false;
  const folded = place.closest("details");
  if (folded) folded.open = true;
  place.textContent = text;
  if (control?.id) {
    control.setAttribute("aria-invalid", "true");
    control.focus();
  } else {
    place.scrollIntoView({ block: "nearest" });
  }
  return true;
}
