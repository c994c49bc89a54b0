/**
 * The wire `live.v1` as this page speaks it: names, limits, bytes, close codes.
 *
 * Chapters 1, 2, 7 and 8 of live/PROTOCOL.md. Pure: no socket, no clock, no DOM, so `node --test`
 * runs this very file against live/protocol_vectors.json. It must not know what a fact means;
 * that is `store.js`.
 *
 * A server frame is one or more MessagePack values back to back (a whole tick of a room is packed
 * once for everybody), so decoding yields a list.
 */

import { Decoder } from "./vendor/msgpack/Decoder.mjs";
import { Encoder } from "./vendor/msgpack/Encoder.mjs";

export const SUBPROTOCOL = "live.v1";

/** First element of every envelope that the server sends. */
export const Kind = Object.freeze({
  REPLY: 0,
  FAILURE: 1,
  CONTROL: 2,
  STATE: 3,
  CHAT: 4,
  DIRECT: 5,
  SKIPPED: 6,
  BEAT: 7,
  SNAPSHOT: 8,
});

/** Fewest elements of each known envelope, the kind included. */
const LENGTHS = Object.freeze([3, 3, 4, 4, 3, 3, 3, 2, 2]);

export const ID_MAX = 2 ** 31 - 1;
/** Characters of a comment after trimming, counted as the server counts them (code points). */
export const COMMENT_CHARS_MAX = 300;
export const ANNOUNCEMENT_CHARS_MAX = 200;
export const QUANTITY_MAX = 99;
/** Likes in one command; the sum is sent at most once a second. */
export const LIKES_MAX = 15;
export const LIKE_INTERVAL_MS = 1_000;
/** Presses of Buy whose answer never came, in one `join`. */
export const UNDECIDED_MAX = 8;
/** A client that heard nothing for so long reconnects; the server sends a beat every 20 s. */
export const SILENCE_MS = 45_000;

/** Refusals that do not decide anything: the same rid may be sent again. */
export const UNDECIDED_CODES = Object.freeze(
  new Set(["busy", "unavailable", "internal", "rate_limited"]),
);

/** Close codes below 4000 after which one comes back. */
const RECONNECT_CODES = new Set([1001, 1005, 1006, 1011, 1012, 1013]);

export const BACKOFF_BASE_MS = 500;
export const BACKOFF_CAP_MS = 20_000;

/** @typedef {[number, ...any[]]} Envelope */
/** @typedef {{amount: number, currency: string}} Money */

/** What arrived is not the protocol: close the connection and come back. */
export class BadFrame extends Error {}

const encoder = new Encoder();
const decoder = new Decoder();

/**
 * One client frame.
 * @param {number} id 1 … ID_MAX, or 0 when no reply is wanted
 * @param {string} name
 * @param {Record<string, unknown>} params
 * @returns {Uint8Array}
 */
export function encodeCommand(id, name, params) {
  return encoder.encode([id, name, params]);
}

/**
 * All envelopes of one server frame. Kinds that are not known are passed on; who reads them
 * ignores them.
 * @param {ArrayBuffer | Uint8Array} data
 * @returns {Envelope[]}
 * @throws {BadFrame}
 */
export function decodeFrame(data) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  /** @type {Envelope[]} */
  const envelopes = [];
  try {
    for (const value of decoder.decodeMulti(bytes)) envelopes.push(checked(value));
  } catch (error) {
    if (error instanceof BadFrame) throw error;
    throw new BadFrame("not MessagePack");
  }
  return envelopes;
}

/**
 * @param {unknown} value
 * @returns {Envelope}
 */
function checked(value) {
  if (!Array.isArray(value) || !Number.isInteger(value[0])) throw new BadFrame("not an envelope");
  if (value.length < (LENGTHS[value[0]] ?? 1)) throw new BadFrame("an envelope is too short");
  return /** @type {Envelope} */ (value);
}

/**
 * Chapter 8: may a client come back after this close code?
 * @param {number} code
 */
export function reconnects(code) {
  return (code >= 4000 && code < 4500) || RECONNECT_CODES.has(code);
}

/**
 * The longest wait before attempt number `attempt` (from 0), in milliseconds.
 * @param {number} attempt
 */
export function backoffCeiling(attempt) {
  return Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 16));
}

/**
 * A new id for a press of Buy or a comment: UUIDv7, so that ids sort by time.
 * @param {number} nowMs
 * @param {(bytes: Uint8Array) => Uint8Array} [fill]
 */
export function newRid(nowMs, fill = (bytes) => crypto.getRandomValues(bytes)) {
  const bytes = fill(new Uint8Array(16));
  let time = nowMs;
  for (let i = 5; i >= 0; i -= 1) {
    bytes[i] = time % 256;
    time = Math.floor(time / 256);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [8, 12, 16, 20].reduceRight((text, at) => `${text.slice(0, at)}-${text.slice(at)}`, hex);
}
