/**
 * HTTP as this page uses it: what is not live. Answers are JSON, refusals are problem documents.
 *
 * Responsible for addresses, tokens and turning every failure (no network, a proxy's HTML page, a
 * problem document) into one `Refusal`. It must not know views or when to ask.
 */

import { Refusal } from "./refusal.js";

const ROOT = "/api/v1";
/** A request that takes longer is given up, milliseconds. */
export const TIMEOUT_MS = 20_000;

/**
 * @typedef {object} Request
 * @property {string} [method]
 * @property {unknown} [json] body as JSON
 * @property {string | Blob} [body] body as it is
 * @property {string} [type] of `body`
 * @property {string | null} [token]
 * @property {string} [key] Idempotency-Key
 */

/**
 * @param {string} path below /api/v1
 * @param {Request} [request]
 * @returns {Promise<any>}
 * @throws {Refusal}
 */
export async function call(path, request = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (request.token) headers.Authorization = `Bearer ${request.token}`;
  if (request.key) headers["Idempotency-Key"] = request.key;
  if (request.json !== undefined) headers["Content-Type"] = "application/json";
  else if (request.type) headers["Content-Type"] = request.type;
  let response;
  try {
    response = await fetch(ROOT + path, {
      method: request.method ?? "GET",
      headers,
      body: request.json !== undefined ? JSON.stringify(request.json) : request.body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    throw new Refusal("offline");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw Refusal.of(answer, response.status);
  return answer;
}

const quoted = encodeURIComponent;

/**
 * A list, whether the answer is a bare array or a page of one.
 * @param {any} answer
 * @param {string} name
 * @returns {any[]}
 */
function listed(answer, name) {
  if (Array.isArray(answer)) return answer;
  return answer?.[name] ?? answer?.items ?? [];
}

/**
 * A guest's identity. With the token of one, the same viewer under another name.
 * @param {string} name
 * @param {string | null} [token]
 * @returns {Promise<import("./storage.js").Identity>}
 */
export async function guest(name, token = null) {
  const answer = await call("/guests", { method: "POST", json: { name }, token });
  return { token: answer.token, ...answer.viewer };
}

/**
 * A host's identity, by {login, password} or a one-time {link}.
 * @param {{login: string, password: string} | {link: string}} proof
 * @returns {Promise<import("./storage.js").Identity>}
 */
export async function session(proof) {
  const answer = await call("/sessions", { method: "POST", json: proof });
  return { token: answer.token, ...(answer.account ?? answer.viewer) };
}

/** @param {string | null} [token] */
export const shows = async (token = null) => listed(await call("/shows", { token }), "shows");

/** @param {string} id */
export const show = (id) => call(`/shows/${quoted(id)}`);

/**
 * @param {string} token
 * @param {{title: string, video?: string}} values
 */
export const createShow = (token, values) =>
  call("/shows", { method: "POST", json: values, token });

/** @param {string | null} token */
export const shop = (token) => call("/shop", { token });

/**
 * A page of products.
 * @param {string} token
 * @param {string} query
 * @param {string | null} after
 * @returns {Promise<{products: any[], after: string | null}>}
 */
export async function products(token, query, after) {
  const parameters = new URLSearchParams();
  if (query) parameters.set("query", query);
  if (after) parameters.set("after", after);
  const answer = await call(`/products?${parameters}`, { token });
  return {
    products: listed(answer, "products"),
    after: answer?.after ?? answer?.next ?? null,
  };
}

/**
 * @param {string} token
 * @param {string} sku
 */
export const stock = (token, sku) => call(`/stock/${quoted(sku)}`, { token });

/**
 * Whether all numbers of stock agree.
 * @param {string} token
 */
export const stockCheck = (token) => call("/stock-check", { token });

/**
 * @param {string} token
 * @param {Blob} file
 * @param {string} currency
 */
export const importProducts = (token, file, currency) =>
  call(`/imports?currency=${quoted(currency)}`, {
    method: "POST",
    body: file,
    type: "text/csv",
    token,
  });

/**
 * @param {string} token
 * @param {string | null} showId a host sees all orders of a show; without one, the caller's own
 */
export const orders = async (token, showId) =>
  listed(await call(showId ? `/orders?show=${quoted(showId)}` : "/orders", { token }), "orders");

/**
 * An order with who bought it.
 * @param {string} token
 * @param {string} id
 * @returns {Promise<{order: any, customer: any}>}
 */
export const order = (token, id) => call(`/orders/${quoted(id)}`, { token });

/**
 * @param {string} token
 * @param {string} rid
 */
export const hold = (token, rid) => call(`/holds/${quoted(rid)}`, { token });

/** What becomes of holds that run out unpaid. */
export const holdRule = () => call("/hold-rule");

/**
 * Viewers whose holds are shorter and fewer now.
 * @param {string} token
 */
export const limitedViewers = async (token) => listed(await call("/limited-viewers", { token }), "viewers");

/**
 * Whether the order of a sale's claims holds together.
 * @param {string} token
 * @param {string} drop
 */
export const checkClaims = (token, drop) => call(`/drops/${quoted(drop)}/claims/check`, { token });

/**
 * All claims of a sale as a CSV file.
 * @param {string} token
 * @param {string} drop
 */
export const claimsFile = (token, drop) => file(token, `/drops/${quoted(drop)}/claims.csv`);

/**
 * A file behind the sign-in; a link could not carry the token.
 * @param {string} token
 * @param {string} path below /api/v1
 * @param {Record<string, string>} [headers]
 * @returns {Promise<Blob>}
 * @throws {Refusal}
 */
export async function file(token, path, headers = {}) {
  try {
    const response = await fetch(ROOT + path, {
      headers: { ...headers, Authorization: `Bearer ${token}` },
      credentials: "same-origin",
      cache: "no-store",
    });
    if (!response.ok) throw Refusal.of(await response.json().catch(() => null), response.status);
    return await response.blob();
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal("offline");
  }
}

/**
 * Starts (or takes up again) the payment of a hold.
 * @param {string} token
 * @param {string} rid
 * @param {any} body who buys and where it goes, perhaps with a `coupon`
 * @param {string} key
 * @returns {Promise<{url: string, total: any, shipping: any, until_ms: number}>}
 */
export const pay = (token, rid, body, key) =>
  call(`/holds/${quoted(rid)}/payment`, { method: "POST", json: body, token, key });
