// The playground's own key: made when the first question is asked, good for an hour, held in memory and nowhere else.

import { api, revokeAndLeave } from "./api.js";

const LIFE_S = 3600;
const MARGIN_S = 60;
let held = null; // {id, secret, expires_at}

/** The secret of a key that works for another minute at least. */
export async function playgroundKey() {
  const now = Math.floor(Date.now() / 1000);
  if (held === null || held.expires_at - now < MARGIN_S) {
    await dropPlaygroundKey();
    const made = await api("POST", "keys", {
      body: { name: "Playground", scopes: ["inference"], expires_at: now + LIFE_S },
    });
    held = { id: made.id, secret: made.secret, expires_at: made.expires_at };
  }
  return held.secret;
}

/** Revokes it; where that fails it ends by itself within the hour. */
export async function dropPlaygroundKey() {
  const dropped = held;
  held = null;
  if (dropped !== null) await api("DELETE", `keys/${encodeURIComponent(dropped.id)}`).catch(() => undefined);
}

window.addEventListener("pagehide", () => {
  if (held !== null) revokeAndLeave(held.id);
  held = null;
});
