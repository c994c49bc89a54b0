/**
 * What a browser keeps for us: who this guest is, the language, the delivery address, undecided buys.
 *
 * Responsible for names and shapes of stored values. A browser may refuse storage (private mode,
 * full disk): then everything lives until the page is left, and nothing breaks. A host's token goes
 * to session storage, because consoles are often shared machines; a guest's to local storage,
 * because holds and orders belong to it.
 */

import { UNDECIDED_MAX } from "./protocol.js";

/** @typedef {{token: string, id: string, name: string, role: string}} Identity */
/** @typedef {{rid: string, drop: string, lines: [string, number][], total?: number, at: number}} Press */

/** Presses older than this are not asked about any more: the longest hold is a day. */
const PRESS_AGE_MAX_MS = 24 * 3600 * 1000;

class Shelf {
  /** @param {() => Storage} open */
  constructor(open) {
    /** @type {Map<string, string>} */
    this.memory = new Map();
    /** @type {Storage | null} */
    this.storage = null;
    try {
      this.storage = open();
    } catch {
      // Refused: memory only.
    }
  }

  /** @param {string} key */
  read(key) {
    let text = this.memory.get(key) ?? null;
    try {
      text = this.storage?.getItem(`vitrine.${key}`) ?? text;
      return text === null ? null : JSON.parse(text);
    } catch {
      return null;
    }
  }

  /**
   * @param {string} key
   * @param {unknown} value null takes it away
   */
  write(key, value) {
    const text = JSON.stringify(value);
    if (value === null) this.memory.delete(key);
    else this.memory.set(key, text);
    try {
      if (value === null) this.storage?.removeItem(`vitrine.${key}`);
      else this.storage?.setItem(`vitrine.${key}`, text);
    } catch {
      // Full or refused: memory holds it.
    }
  }
}

const lasting = new Shelf(() => globalThis.localStorage);
const passing = new Shelf(() => globalThis.sessionStorage);

/** @returns {Identity | null} */
export const guest = () => lasting.read("guest");
/** @param {Identity | null} identity */
export const keepGuest = (identity) => lasting.write("guest", identity);

/** @returns {Identity | null} */
export const host = () => passing.read("host");
/** @param {Identity | null} identity */
export const keepHost = (identity) => passing.write("host", identity);

/** @returns {string | null} */
export const language = () => lasting.read("language");
/** @param {string} code */
export const keepLanguage = (code) => lasting.write("language", code);

/** @returns {Record<string, string>} what was typed into the address form last time */
export const delivery = () => lasting.read("delivery") ?? {};
/** @param {Record<string, string> | null} values */
export const keepDelivery = (values) => lasting.write("delivery", values);

/**
 * The fence of this console, so that the same console keeps its place after a reload.
 * @param {string} show
 * @returns {number | null}
 */
export const fence = (show) => passing.read(`fence.${show}`);
/**
 * @param {string} show
 * @param {number | null} value
 */
export const keepFence = (show, value) => passing.write(`fence.${show}`, value);

/**
 * Presses of Buy whose answer never came, oldest first.
 * @param {string} show
 * @param {number} nowMs
 * @returns {Press[]}
 */
export function undecided(show, nowMs) {
  const presses = passing.read(`undecided.${show}`);
  if (!Array.isArray(presses)) return [];
  return presses.filter((press) => nowMs - press.at < PRESS_AGE_MAX_MS);
}

/**
 * @param {string} show
 * @param {Press} press
 */
export function keepUndecided(show, press) {
  const others = undecided(show, press.at).filter((one) => one.rid !== press.rid);
  passing.write(`undecided.${show}`, [...others, press].slice(-UNDECIDED_MAX));
}

/**
 * @param {string} show
 * @param {string} rid
 * @param {number} nowMs
 */
export function forgetUndecided(show, rid, nowMs) {
  const left = undecided(show, nowMs).filter((one) => one.rid !== rid);
  passing.write(`undecided.${show}`, left.length > 0 ? left : null);
}

/**
 * The Idempotency-Key of a payment request: the same for the same body, another for another.
 * @param {string} rid
 * @param {string} body
 * @param {() => string} newKey
 */
export function paymentKey(rid, body, newKey) {
  const known = passing.read(`payment.${rid}`);
  if (known && known.body === body) return known.key;
  const key = newKey();
  passing.write(`payment.${rid}`, { key, body });
  return key;
}

/** @typedef {{total: any, shipping: any, coupon: string}} Promised */

/**
 * What the payment page of a hold said it comes to, and the code that was sent for it.
 * @param {string} rid
 * @returns {Promised | null}
 */
export const promised = (rid) => passing.read(`promised.${rid}`);
/**
 * @param {string} rid
 * @param {Promised} value
 */
export const keepPromised = (rid, value) => passing.write(`promised.${rid}`, value);
