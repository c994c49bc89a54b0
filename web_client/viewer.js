/**
 * A viewer in a show: the line, the room, the chat and the purchases, put together.
 *
 * Responsible for who talks to whom; every rule is in the part that it belongs to. The views read
 * `observable` and call the methods here.
 */

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { Observable } from "./observable.js";
import { Kind, LIKES_MAX, LIKE_INTERVAL_MS } from "./protocol.js";
import { Purchases } from "./purchases.js";
import { EMPTY, apply, position } from "./store.js";
import * as storage from "./storage.js";
import { Waits } from "./waits.js";

/** Likes that wait for the next second; more taps only make hearts. */
const LIKES_WAITING_MAX = 4 * LIKES_MAX;

/**
 * @typedef {object} View
 * @property {import("./connection.js").Status} status
 * @property {boolean} welcomed joined at least once
 * @property {import("./store.js").Room} room
 * @property {{id: string, name: string, role: string} | null} you
 * @property {import("./chat.js").Mine[]} mine
 * @property {import("./purchases.js").Press | null} press
 * @property {Record<string, any>} holds by rid
 * @property {Record<string, any>} orders by id
 * @property {Record<string, any>} waits by rid, entries of wait lists
 * @property {Record<string, string>} payments by rid, a payment that needs another try
 * @property {number} likesWaiting
 * @property {{key: string, values?: Record<string, unknown>, drop?: string, sku?: string} | null} notice
 */

/** The live address of the server that served this page. */
export function liveUrl() {
  const { protocol, host } = globalThis.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/live`;
}

export class Viewer {
  /**
   * @param {string} show
   * @param {() => string} newName a name for a guest who has none yet
   */
  constructor(show, newName) {
    this.show = show;
    this.newName = newName;
    const clock = () => Date.now();
    this.connection = new Connection({
      url: liveUrl(),
      join: () => this.joinParams(),
      onEnvelopes: (envelopes) => this.read(envelopes),
      onJoined: (reply) => this.joined(reply),
      onStatus: (status) => this.observable?.change({ status }),
      renewToken: () => this.becomeGuest(),
    });
    /** @type {Observable<View>} */
    this.observable = new Observable({
      status: this.connection.status,
      welcomed: false,
      room: EMPTY,
      you: null,
      mine: [],
      press: null,
      holds: {},
      orders: {},
      waits: {},
      payments: {},
      likesWaiting: 0,
      notice: null,
    });
    const command = (/** @type {string} */ name, /** @type {any} */ params) =>
      this.connection.command(name, params);
    this.chat = new Chat(this.observable, command, clock);
    this.waits = new Waits({ observable: this.observable, command, clock });
    this.purchases = new Purchases({
      observable: this.observable,
      command,
      clock,
      memory: {
        keep: (press) => storage.keepUndecided(show, press),
        forget: (rid) => storage.forgetUndecided(show, rid, clock()),
      },
      ask: (rid) => api.hold(this.token ?? "", rid),
    });
    /** @type {any} */
    this.likeTimer = null;
  }

  get token() {
    return storage.guest()?.token ?? null;
  }

  /** The server's clock, milliseconds. */
  now() {
    return this.connection.serverNow();
  }

  /** Joins, with the identity this browser has or a new one; comes back by itself for ever. */
  async start() {
    if (!this.token) await this.becomeGuest().catch(() => false);
    this.connection.start();
    globalThis.addEventListener("online", () => this.connection.wake());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.connection.wake();
    });
  }

  async becomeGuest() {
    const known = storage.guest();
    storage.keepGuest(await api.guest(known?.name ?? this.newName()));
    return true;
  }

  /**
   * Another name in the chat. The server is shown the old identity, so that holds stay.
   * @param {string} name
   */
  async rename(name) {
    storage.keepGuest(await api.guest(name, this.token));
    this.connection.restart();
  }

  /** Unpaid holds exist, so the identity they belong to should not be given up. */
  get hasOpenHolds() {
    return Object.values(this.observable.value.holds).some(
      (hold) => !["sold", "expired", "cancelled"].includes(hold.state),
    );
  }

  like() {
    const waiting = Math.min(LIKES_WAITING_MAX, this.observable.value.likesWaiting + 1);
    this.observable.change({ likesWaiting: waiting });
    if (this.likeTimer === null) {
      this.likeTimer = setTimeout(() => this.sendLikes(), LIKE_INTERVAL_MS);
    }
  }

  sendLikes() {
    const waiting = this.observable.value.likesWaiting;
    const n = Math.min(LIKES_MAX, waiting);
    if (n > 0) this.connection.tell("like", { n });
    this.observable.change({ likesWaiting: waiting - n });
    this.likeTimer =
      waiting > n ? setTimeout(() => this.sendLikes(), LIKE_INTERVAL_MS) : null;
  }

  joinParams() {
    const { room } = this.observable.value;
    return {
      show: this.show,
      ...(this.token ? { token: this.token } : {}),
      ...(position(room) ? { position: position(room) } : {}),
      undecided: storage.undecided(this.show, Date.now()).map((press) => press.rid),
    };
  }

  /** @param {any} reply */
  joined(reply) {
    this.observable.change({ you: reply.you, welcomed: true });
    this.purchases.joined(reply);
    this.waits.joined(reply);
  }

  /** @param {import("./protocol.js").Envelope[]} envelopes */
  read(envelopes) {
    let room = this.observable.value.room;
    let renewed = false;
    for (const envelope of envelopes) {
      room = apply(room, envelope);
      renewed ||= envelope[0] === Kind.SNAPSHOT;
      if (envelope[0] === Kind.DIRECT) {
        this.purchases.told(envelope[1], envelope[2]);
        this.waits.told(envelope[1], envelope[2]);
      }
    }
    if (room !== this.observable.value.room) this.observable.change({ room });
    if (renewed) this.chat.settle();
  }
}
