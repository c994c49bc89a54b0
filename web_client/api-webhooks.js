/** HTTP for webhooks: the shop's other systems and what was sent to them. Addresses alone. */

import { call } from "./api.js";

const one = (/** @type {string} */ id) => `/webhooks/${encodeURIComponent(id)}`;

/**
 * @param {string} token
 * @returns {Promise<{endpoints: any[], types: string[]}>}
 */
export const list = (token) => call("/webhooks", { token });

/**
 * @param {string} token
 * @param {{url: string, types: string[]}} body
 * @param {string} key
 */
export const add = (token, body, key) => call("/webhooks", { method: "POST", json: body, token, key });

/**
 * @param {string} token
 * @param {string} id
 * @param {{paused?: boolean, url?: string, types?: string[]}} body
 */
export const change = (token, id, body) => call(one(id), { method: "PATCH", json: body, token });

/**
 * @param {string} token
 * @param {string} id
 */
export const remove = (token, id) => call(one(id), { method: "DELETE", token });

/**
 * @param {string} token
 * @param {string} id
 * @returns {Promise<string>}
 */
export const secret = async (token, id) => (await call(`${one(id)}/secret`, { token })).secret;

/**
 * @param {string} token
 * @param {string} id
 * @param {string} key
 * @returns {Promise<string>} the new one
 */
export const rotate = async (token, id, key) =>
  (await call(`${one(id)}/rotation`, { method: "POST", token, key })).secret;

/**
 * @param {string} token
 * @param {string} id
 */
export const test = (token, id) => call(`${one(id)}/test`, { method: "POST", token });

/**
 * @param {string} token
 * @param {string} id
 * @param {string} state all of them if empty
 * @param {number | null} after
 * @returns {Promise<{deliveries: any[], next: number | null}>}
 */
export function deliveries(token, id, state, after) {
  const parameters = new URLSearchParams({ limit: "20" });
  if (state) parameters.set("state", state);
  if (after !== null) parameters.set("after", String(after));
  return call(`${one(id)}/deliveries?${parameters}`, { token });
}

/**
 * Sends one again, or all that were given up.
 * @param {string} token
 * @param {string} id
 * @param {number | null} event
 * @returns {Promise<number>} how many go out again
 */
export const replay = async (token, id, event) =>
  (await call(`${one(id)}${event === null ? "" : `/deliveries/${event}`}/replay`, { method: "POST", token })).replayed;
