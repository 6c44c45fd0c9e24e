// Calls to the edge. The cookie is the browser's business: no script ever sees the management key.

const HEADER = { "X-Tollgate-Console": "1" };

/** What the edge refused, or that it could not be reached (status 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, requestId = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, requestId, retryAfterS });
  }
}

/** Told when a call finds that nobody is signed in any more. */
export const signedOut = new EventTarget();

/** One call of the management API: `api("GET", "keys", { query: { limit: 100 } })`. */
export async function api(method, path, { query = {}, body, signal } = {}) {
  const answer = await send(method, `/console/api/${path}${queryText(query)}`, { body, signal });
  return answer.json();
}

/** The same answer as CSV. */
export async function csv(path, query) {
  const answer = await send("GET", `/console/api/${path}${queryText(query)}`, { accept: "text/csv" });
  return answer.text();
}

/** Every page of a list, up to `pagesMax` of them. */
export async function all(path, { query = {}, signal, pagesMax = 10 } = {}) {
  const found = [];
  let after;
  for (let page = 0; page < pagesMax; page += 1) {
    const answer = await api("GET", path, { query: { limit: 100, after, ...query }, signal });
    found.push(...answer.data);
    if (!answer.has_more) break;
    after = answer.last_id;
  }
  return found;
}

export async function session(method, body) {
  const answer = await send(method, "/console/session", { body });
  return answer.json();
}

/** Ends a key while the page goes away, when nobody can wait for an answer. */
export function revokeAndLeave(keyId) {
  void fetch(`/console/api/keys/${encodeURIComponent(keyId)}`, { method: "DELETE", headers: HEADER, keepalive: true });
}

async function send(method, url, { body, accept = "application/json", signal } = {}) {
  const headers = { ...HEADER, Accept: accept };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers,
      signal,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached. Check your connection, then try again.");
  }
  if (!answer.ok) {
    const refused = await refusal(answer);
    if (refused.status === 401 && !url.endsWith("/session")) signedOut.dispatchEvent(new Event("signedout"));
    throw refused;
  }
  return answer;
}

/** An answer that says no, as an error. */
export async function refusal(answer) {
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch {
    // Not ours: a proxy's page, perhaps.
  }
  return new ApiError(told.message ?? `The service answered ${answer.status}.`, {
    status: answer.status,
    code: told.code,
    param: told.param,
    requestId: answer.headers.get("x-request-id"),
    retryAfterS: Number(answer.headers.get("retry-after")) || null,
  });
}

function queryText(query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}
