/**
 * The chat as one reader sees it: the room's comments, what was left out, and one's own.
 *
 * Responsible for showing one's own comment at once, for keeping the text of a refused one with the
 * reason, and for merging both with the room in one order. Pure apart from `Chat.send`. The reply
 * to a comment does not move the position: comments before it may still be on their way.
 */

import { newRid } from "./protocol.js";

/** Own comments remembered beside the room's. */
const MINE_MAX = 50;

/**
 * @typedef {object} Mine
 * @property {string} rid
 * @property {string} text
 * @property {"pending" | "sent" | "failed"} state
 * @property {number} [offset] once sent
 * @property {import("./store.js").Comment} [comment] once sent
 * @property {import("./refusal.js").Refusal} [refusal] why it failed
 * @property {number} [retryAt] local time from which trying again makes sense
 */
/**
 * @typedef {{key: string, kind: "comment", offset: number, comment: import("./store.js").Comment, own: boolean}
 *   | {key: string, kind: "gap", n: number}
 *   | {key: string, kind: "mine", mine: Mine}} Item
 */

/**
 * Everything in reading order.
 * @param {import("./store.js").Room} room
 * @param {readonly Mine[]} mine
 * @param {string | null} me id of this viewer
 * @returns {Item[]}
 */
export function timeline(room, mine, me) {
  const known = new Set(room.comments.map(([offset]) => offset));
  /** @type {{at: number, item: Item}[]} */
  const placed = room.comments.map(([offset, comment]) => ({
    at: offset,
    item: { key: `c${offset}`, kind: "comment", offset, comment, own: comment.by.id === me },
  }));
  for (const [offset, n] of room.gaps) {
    placed.push({ at: offset + 0.5, item: { key: `g${offset}`, kind: "gap", n } });
  }
  /** @type {Item[]} */
  const waiting = [];
  for (const one of mine) {
    if (one.state !== "sent" || one.offset === undefined || !one.comment) {
      waiting.push({ key: `m${one.rid}`, kind: "mine", mine: one });
    } else if (!known.has(one.offset) && !room.retracted.includes(one.offset)) {
      const { offset, comment } = one;
      placed.push({
        at: offset,
        item: { key: `c${offset}`, kind: "comment", offset, comment, own: true },
      });
    }
  }
  placed.sort((a, b) => a.at - b.at);
  return [...placed.map(({ item }) => item), ...waiting];
}

/** Sends comments and keeps their state in `observable.mine`. */
export class Chat {
  /**
   * @param {import("./observable.js").Observable<any>} observable has `mine`
   * @param {(name: string, params: Record<string, unknown>) => Promise<any>} command
   * @param {() => number} clock milliseconds
   */
  constructor(observable, command, clock) {
    this.observable = observable;
    this.command = command;
    this.clock = clock;
  }

  /** @param {string} text */
  send(text) {
    const rid = newRid(this.clock());
    this.put({ rid, text, state: "pending" });
    return this.transmit(rid, text);
  }

  /**
   * Again, after a refusal. The same rid: if it did arrive the first time it is still one comment.
   * @param {Mine} mine
   */
  again(mine) {
    this.put({ rid: mine.rid, text: mine.text, state: "pending" });
    return this.transmit(mine.rid, mine.text);
  }

  /** @param {string} rid */
  discard(rid) {
    this.observable.change(({ mine }) => ({
      mine: mine.filter((/** @type {Mine} */ one) => one.rid !== rid),
    }));
  }

  /** After a snapshot the room has every comment that exists: sent ones are not ours to keep. */
  settle() {
    this.observable.change(({ mine }) => ({
      mine: mine.filter((/** @type {Mine} */ one) => one.state !== "sent"),
    }));
  }

  /**
   * @param {string} rid
   * @param {string} text
   */
  async transmit(rid, text) {
    try {
      const { offset, comment } = await this.command("comment", { text, rid });
      this.put({ rid, text, state: "sent", offset, comment });
    } catch (error) {
      const refusal = /** @type {import("./refusal.js").Refusal} */ (error);
      const retryAt = this.clock() + (refusal.retryAfterMs ?? 0);
      this.put({ rid, text, state: "failed", refusal, retryAt });
    }
  }

  /** @param {Mine} mine */
  put(mine) {
    this.observable.change(({ mine: all }) => {
      const at = all.findIndex((/** @type {Mine} */ one) => one.rid === mine.rid);
      const next = at < 0 ? [...all, mine] : [...all.slice(0, at), mine, ...all.slice(at + 1)];
      return { mine: next.slice(-MINE_MAX) };
    });
  }
}
