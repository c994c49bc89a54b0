/**
 * HTTP for what comes after the payment: orders, money back, parcels, the shop's own work.
 *
 * Responsible for addresses alone; transport and refusals are `api.js`'s. Changes take the caller's
 * Idempotency-Key, so that a press that is repeated does its work once.
 */

import { call, file } from "./api.js";

const quoted = encodeURIComponent;
/** @param {Record<string, string | number | null | undefined>} values empty ones are left out */
const query = (values) => {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : "";
};

/** @typedef {{show?: string, state?: string, text?: string}} Filter */

/**
 * A page of orders, newest first. A viewer gets their own.
 * @param {string} token
 * @param {Filter} filter
 * @param {string | null} [after]
 * @returns {Promise<{orders: any[], next: string | null}>}
 */
export const orderPage = (token, filter, after = null) =>
  call(`/orders${query({ ...filter, after, limit: 30 })}`, { token });

/**
 * Everything about an order, with who bought it.
 * @param {string} token
 * @param {string} id
 */
export const orderFile = (token, id) => call(`/orders/${quoted(id)}`, { token });

/**
 * @param {string} token
 * @param {string} id
 * @returns {Promise<any[]>}
 */
export const timeline = async (token, id) => (await call(`/orders/${quoted(id)}/timeline`, { token })).events;

/**
 * Something is done about an order: `what` is cancel, refunds, returns or shipments.
 * @param {string} token
 * @param {string} id
 * @param {"cancel" | "refunds" | "returns" | "shipments"} what
 * @param {any} body
 * @param {string} key
 */
export const orderAct = (token, id, what, body, key) =>
  call(`/orders/${quoted(id)}/${what}`, { method: "POST", json: body, token, key });

/**
 * A step of a refund, return or shipment.
 * @param {string} token
 * @param {"refunds" | "returns" | "shipments"} what
 * @param {string} id
 * @param {"approve" | "reject" | "receive" | "deliver" | "lose"} step
 * @param {any} body
 * @param {string} key
 */
export const caseAct = (token, what, id, step, body, key) =>
  call(`/${what}/${quoted(id)}/${step}`, { method: "POST", ...(body ? { json: body } : {}), token, key });

/**
 * The receipt as a page to print, in a language.
 * @param {string} token
 * @param {string} id
 * @param {string} language
 */
export const receipt = (token, id, language) => file(token, `/orders/${quoted(id)}/receipt`, { "Accept-Language": language });

/**
 * @param {string} token
 * @param {Filter} filter
 */
export const ordersFile = (token, filter) => file(token, `/order-export.csv${query(filter)}`);

/**
 * @param {string} token
 * @param {string} show
 * @param {string | null} [after]
 */
export const packingList = (token, show, after = null) =>
  call(`/shows/${quoted(show)}/packing-list${query({ after })}`, { token });

/**
 * @param {string} token
 * @param {string} show
 */
export const packingFile = (token, show) => file(token, `/shows/${quoted(show)}/packing-list.csv`);

/**
 * What buyers asked for and the host has not answered.
 * @param {string} token
 * @returns {Promise<any[]>}
 */
export const wishes = async (token) => (await call("/waiting", { token })).waiting;

/**
 * @param {string} token
 * @param {number | null} atMost another threshold than the shop's
 */
export const lowStock = (token, atMost = null) => call(`/low-stock${query({ at_most: atMost })}`, { token });

/** @param {string} token */
export const terms = (token) => call("/terms", { token });

/**
 * @param {string} token
 * @param {any} body
 * @param {string} key
 */
export const putTerms = (token, body, key) => call("/terms", { method: "PUT", json: body, token, key });

/** @param {string} drop */
export const discount = async (drop) => (await call(`/drops/${quoted(drop)}/discount`)).discount;

/**
 * Sets what a sale takes off; null takes it away.
 * @param {string} token
 * @param {string} drop
 * @param {any} body
 * @param {string} key
 */
export const putDiscount = async (token, drop, body, key) =>
  (
    await call(`/drops/${quoted(drop)}/discount`, {
      method: body ? "PUT" : "DELETE",
      ...(body ? { json: body } : {}),
      token,
      key,
    })
  ).discount;

/**
 * Codes that take something off.
 * @param {string} token
 * @returns {Promise<import("./coupons.js").Coupon[]>}
 */
export const coupons = async (token) => (await call("/coupons", { token })).coupons;

/**
 * Makes a coupon or changes it.
 * @param {string} token
 * @param {string} code
 * @param {any} body
 * @param {string} key
 */
export const putCoupon = (token, code, body, key) =>
  call(`/coupons/${quoted(code)}`, { method: "PUT", json: body, token, key });

/**
 * Our books beside the provider's, of so many days.
 * @param {string} token
 * @param {number} days
 */
export const reconcile = (token, days) => call(`/reconciliation${query({ days })}`, { token });

/** @param {string} token */
export const holds = async (token) => (await call("/holds", { token })).holds;

/**
 * The receipt of one's own press: [epoch, number].
 * @param {string} token
 * @param {string} rid
 * @returns {Promise<[number, number]>}
 */
export const claim = async (token, rid) => (await call(`/claims/${quoted(rid)}`, { token })).claims[0]?.receipt;

/**
 * Everything that is held about somebody who asks for it.
 * @param {string} token
 * @param {string} person
 */
export const personData = (token, person) => call(`/people/${quoted(person)}/data`, { token });

/**
 * Destroys somebody's name and address; `force`: also while an order is under way.
 * @param {string} token
 * @param {string} person
 * @param {boolean} force
 * @param {string} key
 */
export const forgetPerson = (token, person, force, key) =>
  call(`/people/${quoted(person)}/erasure`, { method: "POST", json: { force }, token, key });

/** @param {string} token */
export const myData = (token) => call("/me/data", { token });

/**
 * @param {string} token
 * @param {string} key
 */
export const forgetMe = (token, key) => call("/me/erasure", { method: "POST", token, key });
