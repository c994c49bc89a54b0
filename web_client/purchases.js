/**
 * From a press of Buy to a paid order, as this viewer's page knows it.
 *
 * Responsible for the life of a press (one rid, repeated until it is decided), for the newest state
 * of each hold and order wherever it came from (reply, rejoin, direct push, HTTP), and for what is
 * remembered across a reload. It must not know views; it changes `press`, `holds`, `orders`,
 * `payments` and `notice` of the observable it is given.
 */

import { UNDECIDED_CODES, newRid } from "./protocol.js";
import { Refusal } from "./refusal.js";

/** Attempts of one press before the viewer is asked. */
const ATTEMPTS_MAX = 6;
/** Wait before an attempt when the server names none, milliseconds; doubled each time. */
const ATTEMPT_WAIT_MS = 400;
const ATTEMPT_WAIT_MAX_MS = 5_000;
const TERMINAL = new Set(["sold", "expired", "cancelled"]);

/** @param {any} hold */
export const over = (hold) => TERMINAL.has(hold.state);

/**
 * @typedef {object} Press
 * @property {string} rid
 * @property {string} drop
 * @property {[string, number][]} lines
 * @property {number} [total] minor units
 * @property {"buying" | "undecided" | "refused"} state
 * @property {Refusal} [refusal]
 */

export class Purchases {
  /**
   * @param {object} parts
   * @param {import("./observable.js").Observable<any>} parts.observable
   * @param {(name: string, params: Record<string, unknown>) => Promise<any>} parts.command
   * @param {() => number} parts.clock
   * @param {(ms: number) => Promise<void>} [parts.sleep]
   * @param {{keep: (press: any) => void, forget: (rid: string) => void}} parts.memory
   * @param {(rid: string) => Promise<any>} parts.ask the hold over HTTP
   */
  constructor({ observable, command, clock, sleep, memory, ask }) {
    this.observable = observable;
    this.command = command;
    this.clock = clock;
    this.sleep = sleep ?? ((ms) => new Promise((done) => setTimeout(done, ms)));
    this.memory = memory;
    this.ask = ask;
  }

  /**
   * Press Buy. A second press while one is being decided is the first one: a double click buys once.
   * @param {string} drop
   * @param {[string, number][]} lines
   * @param {number} [total] minor units, what the page showed
   * @returns {Promise<any | null>} the hold, or null when it was refused (see `press`)
   */
  buy(drop, lines, total) {
    if (this.observable.value.press?.state === "buying") return Promise.resolve(null);
    const rid = newRid(this.clock());
    this.memory.keep({ rid, drop, lines, total, at: this.clock() });
    return this.decide({ rid, drop, lines, total, state: "buying" }, false);
  }

  /** The same press again, after it could not be decided. */
  buyAgain() {
    const press = this.observable.value.press;
    if (press?.state !== "undecided") return Promise.resolve(null);
    return this.decide({ ...press, state: "buying", refusal: undefined }, true);
  }

  /** The refusal has been read. */
  dismiss() {
    if (this.observable.value.press?.state !== "buying") this.observable.change({ press: null });
  }

  /**
   * @param {Press} press
   * @param {boolean} retry
   */
  async decide(press, retry) {
    this.observable.change({ press });
    const { rid, drop, lines, total } = press;
    let refusal = new Refusal("unavailable");
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      /** @type {Record<string, unknown>} */
      const params = { rid, drop, lines };
      if (total !== undefined) params.total = total;
      if (retry || attempt > 0) params.retry = true;
      try {
        const hold = await this.command("buy", params);
        this.memory.forget(rid);
        this.observable.change({ press: null });
        this.put(hold);
        return hold;
      } catch (error) {
        refusal = /** @type {Refusal} */ (error);
        if (!UNDECIDED_CODES.has(refusal.code)) break;
        const wait = Math.min(ATTEMPT_WAIT_MAX_MS, ATTEMPT_WAIT_MS * 2 ** attempt);
        await this.sleep(Math.max(wait, refusal.retryAfterMs ?? 0));
      }
    }
    const undecided =
      UNDECIDED_CODES.has(refusal.code) || ["offline", "connection_lost"].includes(refusal.code);
    if (!undecided) this.memory.forget(rid);
    this.observable.change({
      press: { ...press, state: undecided ? "undecided" : "refused", refusal },
    });
    return null;
  }

  /**
   * Give a hold back.
   * @param {string} rid
   */
  async cancel(rid) {
    this.put(await this.command("cancel", { rid }));
  }

  /**
   * After a join: what is open, what was decided while nobody listened.
   * @param {any} reply
   */
  joined(reply) {
    const current = this.observable.value.press;
    for (const order of reply.orders ?? []) this.putOrder(order);
    for (const hold of reply.holds ?? []) this.put(hold);
    for (const answer of reply.decided ?? []) {
      if (answer.rid === current?.rid && current?.state === "buying") continue;
      this.memory.forget(answer.rid);
      if (current?.rid === answer.rid) this.observable.change({ press: null });
      if (answer.state === "unknown") this.observable.change({ notice: { key: "buy.never_arrived" } });
      else this.put(answer);
    }
    const open = new Set((reply.holds ?? []).map((/** @type {any} */ hold) => hold.rid));
    for (const hold of Object.values(this.observable.value.holds)) {
      if (!over(hold) && !open.has(hold.rid)) void this.look(hold.rid);
    }
  }

  /**
   * Ask for one hold over HTTP; nothing happens if it cannot be had.
   * @param {string} rid
   */
  async look(rid) {
    try {
      this.put(await this.ask(rid));
      return true;
    } catch (error) {
      if (/** @type {Refusal} */ (error).code === "unknown_hold") this.drop(rid);
      return false;
    }
  }

  /**
   * A direct push.
   * @param {string} name
   * @param {any} value
   */
  told(name, value) {
    if (name === "hold") this.put(value);
    else if (name === "order") this.putOrder(value);
    else if (name === "payment") {
      this.observable.change(({ payments }) => ({
        payments: { ...payments, [value.rid]: value.state },
      }));
    }
  }

  /** @param {any} hold */
  put(hold) {
    this.observable.change(({ holds }) => {
      const known = holds[hold.rid];
      if (known && over(known) && !over(hold)) return {};
      return { holds: { ...holds, [hold.rid]: { ...known, ...hold } } };
    });
  }

  /** @param {any} order */
  putOrder(order) {
    this.observable.change(({ orders }) => {
      const known = orders[order.id];
      if (known && known.state !== "placed" && order.state === "placed") return {};
      if (known && known.updated_at > order.updated_at) return {};
      return { orders: { ...orders, [order.id]: { ...known, ...order } } };
    });
  }

  /** @param {string} rid */
  drop(rid) {
    this.observable.change(({ holds }) => {
      const left = { ...holds };
      delete left[rid];
      return { holds: left };
    });
  }
}
