/**
 * One viewer's line to the server: a state machine that always knows where it is.
 *
 *     disconnected ──start──► connecting ──open──► joining ──reply──► connected
 *          ▲  │ wait with full jitter  │               │                  │
 *          └──┴──────── cut, silence, goodbye, refusal ┴──────────────────┘
 *
 * Responsible for chapters 3, 4 and 8 of live/PROTOCOL.md: the first command, ids and replies, what
 * is repeated with the same rid after a cut, positions at rejoin, when to come back and when not,
 * and the server's clock. It must not know facts, views or storage: all of that is handed in. Time,
 * timers, randomness and the socket are arguments, so that a test can run years of it at once.
 *
 * Full jitter, because a node that restarts has all of its viewers at the door at the same instant.
 */

import {
  BadFrame,
  ID_MAX,
  Kind,
  SILENCE_MS,
  SUBPROTOCOL,
  UNDECIDED_MAX,
  backoffCeiling,
  decodeFrame,
  encodeCommand,
  reconnects,
} from "./protocol.js";
import { Refusal } from "./refusal.js";

/** Commands that may be sent again after a cut: the same rid is the same action. */
const REPEATED = Object.freeze(new Set(["comment", "buy", "cancel"]));
/** Commands that wait for a reply or for a connection. */
export const PENDING_MAX = 64;
/** How long a socket may take to open and join before it is given up. */
export const JOIN_TIMEOUT_MS = 15_000;
/** Clock samples kept. */
const CLOCK_SAMPLES = 8;
/** Refusals of a join that a fresh token can heal. */
const TOKEN_CODES = Object.freeze(
  new Set(["token_missing", "token_invalid", "token_expired", "wrong_show"]),
);
const SOCKET_CLOSED_BY_US = 4900;

/** @typedef {"disconnected" | "connecting" | "joining" | "connected"} State */
/**
 * @typedef {object} Status
 * @property {State} state
 * @property {number} attempt failures since the last successful join
 * @property {number | null} retryAt when the next attempt starts, by the local clock
 * @property {number | null} closedWith close code after which this connection does not come back
 * @property {Refusal | null} refused why the join was refused for good
 */
/**
 * @typedef {object} Pending
 * @property {number} id
 * @property {string} name
 * @property {Record<string, unknown>} params
 * @property {boolean} sent
 * @property {(result: any) => void} resolve
 * @property {(refusal: Refusal) => void} reject
 */
/**
 * @typedef {object} Options
 * @property {string} url
 * @property {() => Record<string, unknown>} join params of the next join: show, token, position, undecided
 * @property {(envelopes: import("./protocol.js").Envelope[]) => void} onEnvelopes whole frames, replies left out
 * @property {(reply: any) => void} [onJoined]
 * @property {(status: Status) => void} [onStatus]
 * @property {() => Promise<boolean>} [renewToken] after a token was refused; true when there is a new one
 * @property {(url: string, protocol: string) => WebSocket} [createSocket]
 * @property {() => number} [clock] milliseconds
 * @property {() => number} [random] 0 … 1
 * @property {(run: () => void, ms: number) => any} [setTimer]
 * @property {(timer: any) => void} [clearTimer]
 */

export class Connection {
  /** @param {Options} options */
  constructor(options) {
    this.options = {
      createSocket: (/** @type {string} */ url, /** @type {string} */ protocol) =>
        new WebSocket(url, protocol),
      clock: () => Date.now(),
      random: () => Math.random(),
      setTimer: (/** @type {() => void} */ run, /** @type {number} */ ms) => setTimeout(run, ms),
      clearTimer: (/** @type {any} */ timer) => clearTimeout(timer),
      onJoined: () => {},
      onStatus: () => {},
      renewToken: async () => false,
      ...options,
    };
    /** @type {Status} */
    this.status = {
      state: "disconnected",
      attempt: 0,
      retryAt: null,
      closedWith: null,
      refused: null,
    };
    this.url = options.url;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {Map<number, Pending>} */
    this.pending = new Map();
    this.lastId = 0;
    this.joinId = 0;
    this.renewed = false;
    this.heardAt = 0;
    /** @type {number[]} server minus local clock; arrival only ever makes a sample too small */
    this.offsets = [];
    /** @type {any} */
    this.retryTimer = null;
    /** @type {any} */
    this.watchTimer = null;
    /** @type {any} */
    this.leaveTimer = null;
    this.waitUntil = 0;
  }

  /** Milliseconds to add to the local clock to have the server's. */
  get clockOffset() {
    return this.offsets.length > 0 ? Math.max(...this.offsets) : 0;
  }

  /** The server's clock, as well as we know it. */
  serverNow() {
    return this.options.clock() + this.clockOffset;
  }

  start() {
    if (this.status.state === "disconnected") this.open();
  }

  /** Leaves for good; what waits for a reply is refused. */
  stop() {
    this.clearTimers();
    this.dropSocket();
    this.set({ state: "disconnected", retryAt: null });
    for (const pending of this.take(() => true)) pending.reject(new Refusal("connection_lost"));
  }

  /** The network came back or the page is looked at again: do not wait any longer. */
  wake() {
    if (this.status.state === "disconnected" && this.status.retryAt !== null) {
      if (this.options.clock() < this.waitUntil) return;
      this.open();
    } else if (this.status.state === "connected") {
      this.watch();
    }
  }

  /** Comes back at once on a new socket, for example with another token. */
  restart() {
    this.clearTimers();
    this.dropSocket();
    this.hold();
    this.set({ attempt: 0, closedWith: null, refused: null });
    this.open();
  }

  /**
   * Carries out a command. Repeated ones wait for a connection; others are refused without one.
   * @param {string} name
   * @param {Record<string, unknown>} [params]
   * @returns {Promise<any>} the result, or throws `Refusal`
   */
  command(name, params = {}) {
    if (this.status.state !== "connected" && !REPEATED.has(name)) {
      return Promise.reject(new Refusal("offline"));
    }
    if (this.over || this.pending.size >= PENDING_MAX) {
      return Promise.reject(new Refusal(this.over ? "offline" : "busy"));
    }
    return new Promise((resolve, reject) => {
      const pending = { id: this.nextId(), name, params, sent: false, resolve, reject };
      this.pending.set(pending.id, pending);
      if (this.status.state === "connected") this.transmit(pending);
    });
  }

  /**
   * A command that wants no reply. Lost without a connection.
   * @param {string} name
   * @param {Record<string, unknown>} params
   */
  tell(name, params) {
    if (this.status.state === "connected") this.write(encodeCommand(0, name, params));
  }

  /** Ended in a way that waiting does not heal. */
  get over() {
    return this.status.closedWith !== null || this.status.refused !== null;
  }

  /** Rids of presses of Buy that were sent and not answered. */
  undecidedRids() {
    return [...this.pending.values()]
      .filter((pending) => pending.name === "buy" && pending.sent)
      .map((pending) => String(pending.params.rid));
  }

  // --- below: the machine ---------------------------------------------------------------------

  /** @param {Partial<Status>} change */
  set(change) {
    this.status = { ...this.status, ...change };
    this.options.onStatus(this.status);
  }

  open() {
    this.clearTimers();
    this.renewed = false;
    this.heardAt = this.options.clock();
    this.set({ state: "connecting", retryAt: null });
    let socket;
    try {
      socket = this.options.createSocket(this.url, SUBPROTOCOL);
    } catch {
      this.retryLater();
      return;
    }
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const mine = (/** @type {(event: any) => void} */ act) => (/** @type {any} */ event) => {
      if (this.socket === socket) act(event);
    };
    socket.onopen = mine(() => this.join());
    socket.onmessage = mine((event) => this.read(event.data));
    socket.onclose = mine((event) => this.closed(event.code));
    socket.onerror = null;
    this.watchTimer = this.options.setTimer(() => this.watch(), JOIN_TIMEOUT_MS);
  }

  join() {
    this.set({ state: "joining" });
    this.joinId = this.nextId();
    const params = this.options.join();
    const stored = /** @type {string[]} */ (params.undecided ?? []);
    const undecided = [...new Set([...this.undecidedRids(), ...stored])].slice(0, UNDECIDED_MAX);
    this.write(encodeCommand(this.joinId, "join", { ...params, undecided }));
  }

  /** @param {ArrayBuffer} data */
  read(data) {
    this.heardAt = this.options.clock();
    let envelopes;
    try {
      envelopes = decodeFrame(data);
    } catch (error) {
      if (!(error instanceof BadFrame)) throw error;
      this.cut();
      return;
    }
    /** @type {import("./protocol.js").Envelope[]} */
    const rest = [];
    for (const envelope of envelopes) {
      if (envelope[0] === Kind.REPLY) this.replied(envelope[1], envelope[2]);
      else if (envelope[0] === Kind.FAILURE) this.failed(envelope[1], envelope[2]);
      else if (envelope[0] === Kind.BEAT) this.sampleClock(envelope[1]);
      else rest.push(envelope);
      if (envelope[0] === Kind.DIRECT && envelope[1] === "goodbye") this.goodbye(envelope[2]);
    }
    if (rest.length > 0) this.options.onEnvelopes(rest);
  }

  /**
   * @param {number} id
   * @param {any} result
   */
  replied(id, result) {
    if (typeof result?.now_ms === "number") this.sampleClock(result.now_ms);
    if (id === this.joinId && this.status.state === "joining") {
      this.joined(result);
      return;
    }
    const pending = this.pending.get(id);
    if (!pending) return;
    this.pending.delete(id);
    pending.resolve(result);
  }

  /**
   * @param {number} id
   * @param {any} body
   */
  failed(id, body) {
    const refusal = Refusal.of(body);
    if (id === this.joinId && this.status.state === "joining") {
      void this.joinRefused(refusal);
      return;
    }
    const pending = this.pending.get(id);
    if (!pending) return;
    this.pending.delete(id);
    pending.reject(refusal);
  }

  /** @param {any} reply */
  joined(reply) {
    this.set({ state: "connected", attempt: 0, retryAt: null, refused: null });
    this.options.clearTimer(this.watchTimer);
    this.watchTimer = this.options.setTimer(() => this.watch(), SILENCE_MS);
    // What is sent while `onJoined` runs is new and has been sent: only what waited is repeated.
    const waiting = [...this.pending.values()];
    this.options.onJoined(reply);
    /** @type {Map<string, any>} */
    const decided = new Map((reply.decided ?? []).map((/** @type {any} */ one) => [one.rid, one]));
    for (const pending of waiting) {
      const answer = pending.name === "buy" ? decided.get(String(pending.params.rid)) : undefined;
      if (pending.sent && answer && answer.state !== "unknown") {
        this.pending.delete(pending.id);
        pending.resolve(answer);
      } else {
        this.transmit(pending);
      }
    }
  }

  /** @param {Refusal} refusal */
  async joinRefused(refusal) {
    const socket = this.socket;
    if (TOKEN_CODES.has(refusal.code) && !this.renewed) {
      this.renewed = true;
      const renewed = await this.options.renewToken().catch(() => false);
      if (this.socket !== socket) return;
      if (renewed) {
        this.join();
        return;
      }
    }
    if (refusal.temporary) {
      this.cut(refusal.retryAfterMs ?? 0);
      return;
    }
    this.end({ refused: refusal });
  }

  /** @param {{after_ms?: number, url?: string}} value */
  goodbye(value) {
    const afterMs = Math.max(0, Math.min(value?.after_ms ?? 0, 60_000));
    this.waitUntil = this.options.clock() + afterMs;
    if (typeof value?.url === "string" && /^wss?:\/\//.test(value.url)) this.url = value.url;
    this.options.clearTimer(this.leaveTimer);
    // If the node does not close us, we leave by ourselves: it said that it goes.
    this.leaveTimer = this.options.setTimer(() => this.cut(), afterMs);
  }

  /** @param {number} code */
  closed(code) {
    this.socket = null;
    if (reconnects(code)) this.retryLater();
    else this.end({ closedWith: code });
  }

  /** Nothing heard for too long (or never joined): cut, and come back. */
  watch() {
    const silentMs = this.options.clock() - this.heardAt;
    const limitMs = this.status.state === "connected" ? SILENCE_MS : JOIN_TIMEOUT_MS;
    if (silentMs >= limitMs) {
      this.cut();
      return;
    }
    this.options.clearTimer(this.watchTimer);
    this.watchTimer = this.options.setTimer(() => this.watch(), limitMs - silentMs);
  }

  /** @param {number} [waitMs] at least so long */
  cut(waitMs = 0) {
    this.dropSocket();
    this.waitUntil = Math.max(this.waitUntil, this.options.clock() + waitMs);
    this.retryLater();
  }

  retryLater() {
    this.clearTimers();
    this.hold();
    const { clock, random, setTimer } = this.options;
    const firstMs = Math.max(0, this.waitUntil - clock());
    const waitMs = firstMs + random() * backoffCeiling(this.status.attempt);
    this.set({
      state: "disconnected",
      attempt: this.status.attempt + 1,
      retryAt: clock() + waitMs,
    });
    this.retryTimer = setTimer(() => this.open(), waitMs);
  }

  /** @param {{closedWith?: number, refused?: Refusal}} why */
  end(why) {
    this.clearTimers();
    this.dropSocket();
    this.set({ state: "disconnected", retryAt: null, ...why });
    for (const pending of this.take(() => true)) pending.reject(new Refusal("connection_lost"));
  }

  /** After a cut: what may be repeated waits, the rest is refused. */
  hold() {
    for (const pending of this.take((one) => !REPEATED.has(one.name))) {
      pending.reject(new Refusal("connection_lost"));
    }
  }

  /**
   * @param {(pending: Pending) => boolean} which
   * @returns {Pending[]}
   */
  take(which) {
    const taken = [...this.pending.values()].filter(which);
    for (const pending of taken) this.pending.delete(pending.id);
    return taken;
  }

  /** @param {Pending} pending */
  transmit(pending) {
    const params =
      pending.sent && pending.name === "buy" ? { ...pending.params, retry: true } : pending.params;
    pending.sent = true;
    this.write(encodeCommand(pending.id, pending.name, params));
  }

  /** @param {Uint8Array} frame */
  write(frame) {
    try {
      this.socket?.send(frame);
    } catch {
      // A socket that is closing tells so by its close event, which decides what happens.
    }
  }

  dropSocket() {
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(SOCKET_CLOSED_BY_US);
    } catch {
      // Closed already.
    }
  }

  clearTimers() {
    for (const timer of [this.retryTimer, this.watchTimer, this.leaveTimer]) {
      this.options.clearTimer(timer);
    }
  }

  /** @param {number} serverMs */
  sampleClock(serverMs) {
    const offset = serverMs - this.options.clock();
    this.offsets = [...this.offsets, offset].slice(-CLOCK_SAMPLES);
  }

  nextId() {
    do {
      this.lastId = this.lastId >= ID_MAX ? 1 : this.lastId + 1;
    } while (this.pending.has(this.lastId));
    return this.lastId;
  }
}
