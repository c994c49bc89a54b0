/**
 * The wait lists a viewer is on.
 *
 * Responsible for the life of an entry: joining (one rid, repeated until it is decided), the place in
 * line, leaving, and what is told when it ends. It must not know views; it changes `waits`, `press`
 * and `notice` of the observable it is given. An offer is a hold: `purchases.js` takes it from there.
 */

import { UNDECIDED_CODES, newRid } from "./protocol.js";

/** Attempts of one join before the viewer is told. */
const ATTEMPTS_MAX = 4;
const ATTEMPT_WAIT_MS = 500;
/** The place in line is asked for again at most this often, milliseconds; spread over as much again. */
export const LOOK_MS = 10_000;

export class Waits {
  /**
   * @param {object} parts
   * @param {import("./observable.js").Observable<any>} parts.observable
   * @param {(name: string, params: Record<string, unknown>) => Promise<any>} parts.command
   * @param {() => number} parts.clock
   * @param {(ms: number) => Promise<void>} [parts.sleep]
   */
  constructor({ observable, command, clock, sleep }) {
    this.observable = observable;
    this.command = command;
    this.clock = clock;
    this.sleep = sleep ?? ((ms) => new Promise((done) => setTimeout(done, ms)));
  }

  /**
   * The entry for a SKU of a drop, if this viewer waits for it.
   * @param {string} drop
   * @param {string} sku
   */
  of(drop, sku) {
    return Object.values(this.observable.value.waits).find(
      (/** @type {any} */ one) => one.drop === drop && one.sku === sku && pending(one),
    );
  }

  /**
   * Waits for it; null when it was refused (then `press` says why).
   * @param {string} drop
   * @param {string} sku
   * @param {number} [quantity]
   */
  async join(drop, sku, quantity = 1) {
    const rid = newRid(this.clock());
    for (let attempt = 1; ; attempt += 1) {
      try {
        return this.put(await this.command("wait", { rid, drop, sku, quantity }));
      } catch (error) {
        const refusal = /** @type {any} */ (error);
        if (!UNDECIDED_CODES.has(refusal.code) || attempt === ATTEMPTS_MAX) {
          this.observable.change({
            press: { rid, drop, lines: [[sku, quantity]], state: "refused", refusal },
          });
          return null;
        }
        await this.sleep(Math.max(ATTEMPT_WAIT_MS * attempt, refusal.retryAfterMs ?? 0));
      }
    }
  }

  /**
   * The place in line now; nothing happens if it cannot be had.
   * @param {any} entry
   */
  async look(entry) {
    const { rid, drop, sku, quantity } = entry;
    try {
      this.put(await this.command("wait", { rid, drop, sku, quantity }));
    } catch {
      // It is told when it changes; the number was only a comfort.
    }
  }

  /** @param {string} rid */
  async leave(rid) {
    this.put(await this.command("stop_waiting", { rid }));
  }

  /**
   * After a join: the entries that still wait. Others have ended while nobody listened.
   * @param {any} reply
   */
  joined(reply) {
    const waits = Object.fromEntries((reply.waits ?? []).map((/** @type {any} */ one) => [one.rid, one]));
    this.observable.change({ waits });
  }

  /**
   * A direct push.
   * @param {string} name
   * @param {any} value
   */
  told(name, value) {
    if (name !== "wait") return;
    this.put(value);
    if (["offered", "passed", "closed"].includes(value.state)) {
      this.observable.change({ notice: { key: `wait.${value.state}`, drop: value.drop, sku: value.sku } });
    }
  }

  /** @param {any} entry */
  put(entry) {
    this.observable.change(({ waits }) => ({ waits: { ...waits, [entry.rid]: entry } }));
    return entry;
  }
}

/** @param {any} entry */
export const pending = (entry) => entry.state === "waiting" || entry.state === "entered";
