/**
 * Coupons as people type and read them. Pure: no views, no requests, no texts.
 *
 * Responsible for a code as the server spells it, why one was refused, how far one is used up, and
 * an end as the browser's date field writes it. The server decides; this only explains.
 */

import { reduction } from "./order-words.js";

/** As the server takes it (live/api_back_office.py). */
const CODE = /^[A-Z0-9_-]{1,40}$/;

/** Why a coupon is refused (commerce/errors.py). */
export const REASONS = Object.freeze(["unknown", "used_up", "ended", "fixed"]);

/** The largest number of uses and the latest instant that the server takes. */
const INT_MAX = 2 ** 53 - 1;

/**
 * @typedef {object} Coupon
 * @property {string} code
 * @property {string} title
 * @property {number | null} percent_bp hundredths of a percent
 * @property {number | null} amount minor units
 * @property {number} uses_max
 * @property {number} used
 * @property {number | null} ends_at milliseconds since 1970
 */

/** @param {string} text as it was typed: in either case, perhaps with spaces around it */
export const codeOf = (text) => text.trim().toUpperCase();

/**
 * Why the code that was sent cannot be used; "" if the refusal is about something else.
 * @param {{code: string, details: Record<string, unknown>} | null} refusal
 * @returns {string} one of `REASONS`, or "other" for one of tomorrow
 */
export function refusedBecause(refusal) {
  if (refusal?.code === "bad_params" && refusal.details.field === "coupon") return "unknown";
  if (refusal?.code !== "coupon_refused") return "";
  const reason = String(refusal.details.reason ?? "");
  return REASONS.includes(reason) ? reason : "other";
}

/**
 * @param {Coupon} coupon
 * @param {number} nowMs
 * @returns {"ended" | "used_up" | "open"}
 */
export function couponState(coupon, nowMs) {
  if (coupon.ends_at !== null && coupon.ends_at <= nowMs) return "ended";
  return coupon.used >= coupon.uses_max ? "used_up" : "open";
}

/**
 * What a host typed, as the body of PUT /coupons/{code}; or the field that is wrong.
 * @param {Record<string, string>} typed code, title, kind, value, uses, ends
 * @param {number} digits decimals of the shop's currency
 * @returns {{code: string, body: any, wrong: "" | "code" | "title" | "value" | "uses" | "ends"}}
 */
export function couponOf(typed, digits) {
  const code = codeOf(typed.code);
  const title = typed.title.trim();
  const rule = reduction(typed.kind, typed.value, digits);
  const uses = /^\s*\d+\s*$/.test(typed.uses) ? Number(typed.uses) : INT_MAX + 1;
  const ends = typed.ends === "" ? null : new Date(typed.ends).getTime();
  const checks = /** @type {["code" | "title" | "value" | "uses" | "ends", boolean][]} */ ([
    ["code", CODE.test(code)],
    ["title", title !== ""],
    ["value", rule !== null],
    ["uses", uses <= INT_MAX],
    ["ends", ends === null || ends >= 0],
  ]);
  const wrong = checks.find(([, fine]) => !fine)?.[0] ?? "";
  return { code, body: { title, ...rule, uses_max: uses, ends_at: ends }, wrong };
}

/**
 * An instant as a date field of the browser has it, in the clock of who reads it: "2026-11-30T18:00".
 * @param {number | null} atMs
 */
export function fieldTime(atMs) {
  if (atMs === null) return "";
  const at = new Date(atMs);
  return new Date(atMs - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
