/**
 * A host's console in one show: the same wire as a viewer's page, plus the fence.
 *
 * Responsible for being the console or knowing that it is not (chapter 5 of live/PROTOCOL.md): the
 * fence says which console is the newest, `n` rises with each action, and actions are sent one
 * after another, so that neither a second console nor a reconnecting tablet carries out an old one.
 * An action that was cut off is not repeated: the facts after the rejoin show whether it happened.
 */

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { Observable } from "./observable.js";
import { Kind } from "./protocol.js";
import { Refusal } from "./refusal.js";
import { EMPTY, apply, position } from "./store.js";
import * as storage from "./storage.js";
import { liveUrl } from "./viewer.js";

/** Orders kept on the page. */
const ORDERS_MAX = 200;

/** @typedef {"asking" | "mine" | "taken"} Hold */

export class HostConsole {
  /**
   * @param {string} show
   * @param {import("./storage.js").Identity} who
   */
  constructor(show, who) {
    this.show = show;
    this.who = who;
    this.n = 0;
    /** @type {number | null} */
    this.fence = storage.fence(show);
    /** Actions go one after another. @type {Promise<unknown>} */
    this.last = Promise.resolve();
    this.connection = new Connection({
      url: liveUrl(),
      join: () => this.joinParams(),
      onEnvelopes: (envelopes) => this.read(envelopes),
      onJoined: (reply) => void this.joined(reply),
      onStatus: (status) => this.observable?.change({ status }),
    });
    this.observable = new Observable({
      status: this.connection.status,
      welcomed: false,
      room: EMPTY,
      /** @type {any} */
      you: null,
      /** @type {import("./chat.js").Mine[]} */
      mine: [],
      /** @type {Hold} */
      hold: "asking",
      /** Newest first, by id. @type {any[]} */
      orders: [],
      /** Ids of orders that came while this page watched. @type {string[]} */
      fresh: [],
      /** @type {Refusal | null} */
      refusal: null,
    });
    this.chat = new Chat(
      this.observable,
      (name, params) => this.connection.command(name, params),
      () => Date.now(),
    );
  }

  /** The server's clock, milliseconds. */
  now() {
    return this.connection.serverNow();
  }

  start() {
    this.connection.start();
    const wake = () => document.hidden || this.connection.wake();
    globalThis.addEventListener("online", wake);
    document.addEventListener("visibilitychange", wake);
    return () => {
      globalThis.removeEventListener("online", wake);
      document.removeEventListener("visibilitychange", wake);
      this.connection.stop();
    };
  }

  /**
   * Carries out a host command as this console. A refusal is also kept in `refusal`.
   * @param {string} name
   * @param {Record<string, unknown>} [params]
   * @returns {Promise<any>}
   */
  act(name, params = {}) {
    const run = async () => {
      if (this.fence === null || this.observable.value.hold !== "mine") {
        throw new Refusal(this.observable.value.hold === "taken" ? "console_taken" : "offline");
      }
      this.n += 1;
      return this.connection.command(name, { ...params, fence: this.fence, n: this.n });
    };
    const result = this.last.then(run, run);
    this.last = result.catch(() => {});
    this.observable.change({ refusal: null });
    return result.catch((error) => {
      const refusal = error instanceof Refusal ? error : new Refusal("unknown");
      this.observable.change({ refusal });
      if (refusal.code === "console_taken") this.observable.change({ hold: "taken" });
      // The count is behind (an answer was lost): the server tells it again.
      if (refusal.code === "replayed_action") void this.take();
      throw refusal;
    });
  }

  /** Becomes the console, or takes it back. */
  async take() {
    this.observable.change({ hold: "asking" });
    try {
      const known = this.fence === null ? {} : { fence: this.fence };
      const { fence, n } = await this.connection.command("take_console", known);
      this.fence = fence;
      this.n = n;
      storage.keepFence(this.show, fence);
      this.observable.change({ hold: "mine", refusal: null });
    } catch (error) {
      const refusal = /** @type {Refusal} */ (error);
      this.observable.change({
        refusal,
        hold: refusal.code === "console_taken" ? "taken" : "asking",
      });
    }
  }

  joinParams() {
    const at = position(this.observable.value.room);
    return { show: this.show, token: this.who.token, ...(at ? { position: at } : {}) };
  }

  /** @param {any} reply */
  async joined(reply) {
    this.observable.change({ you: reply.you, welcomed: true });
    void this.loadOrders();
    // Another console that came while this one was away keeps the show: two that take it from
    // each other at every reconnect would help nobody.
    const newest = reply.console?.fence;
    const lost = this.fence !== null && typeof newest === "number" && newest > this.fence;
    if (lost || this.observable.value.hold === "taken") this.observable.change({ hold: "taken" });
    else await this.take();
  }

  async loadOrders() {
    try {
      const found = await api.orders(this.who.token, this.show);
      for (const order of [...found].reverse()) this.putOrder(order, false);
    } catch {
      // The next join asks again; new ones come by push.
    }
  }

  /**
   * Who bought is not on the wire: it is personal, and asked for over HTTP.
   * @param {string} id
   */
  async loadBuyer(id) {
    try {
      const { order, customer } = await api.order(this.who.token, id);
      if (customer?.name) this.putOrder({ ...order, buyer: String(customer.name) }, false);
    } catch {
      // The order stands there without a name.
    }
  }

  /**
   * @param {any} order
   * @param {boolean} came while this page watched
   */
  putOrder(order, came) {
    this.observable.change(({ orders, fresh }) => {
      const known = orders.find((one) => one.id === order.id);
      const merged = { ...known, ...order };
      if (known && known.state !== "placed" && order.state === "placed") merged.state = known.state;
      // A page of orders that was asked for before the push came after it.
      if (known && known.updated_at > order.updated_at) Object.assign(merged, known);
      const next = known
        ? orders.map((one) => (one === known ? merged : one))
        : [merged, ...orders].slice(0, ORDERS_MAX);
      const isFresh = came && !known;
      return { orders: next, fresh: isFresh ? [order.id, ...fresh].slice(0, ORDERS_MAX) : fresh };
    });
  }

  /** @param {import("./protocol.js").Envelope[]} envelopes */
  read(envelopes) {
    let room = this.observable.value.room;
    let renewed = false;
    for (const envelope of envelopes) {
      room = apply(room, envelope);
      renewed ||= envelope[0] === Kind.SNAPSHOT;
      if (envelope[0] === Kind.DIRECT) this.told(envelope[1], envelope[2]);
    }
    if (room !== this.observable.value.room) this.observable.change({ room });
    if (renewed) this.chat.settle();
  }

  /**
   * @param {string} name
   * @param {any} value
   */
  told(name, value) {
    if (name === "sale") {
      this.putOrder(value.order, true);
      void this.loadBuyer(value.order.id);
    }
    if (name !== "console" || this.observable.value.hold !== "mine") return;
    if (this.fence !== null && value.fence > this.fence) this.observable.change({ hold: "taken" });
  }
}
