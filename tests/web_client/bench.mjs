// A world for tests of the page: a clock, timers, sockets that answer what a test says. No waiting.

import { Decoder } from "../../web_client/vendor/msgpack/Decoder.mjs";
import { Encoder } from "../../web_client/vendor/msgpack/Encoder.mjs";

const encoder = new Encoder();
const decoder = new Decoder();

export class World {
  constructor() {
    this.now = 1_000_000;
    this.random = 0.5;
    /** @type {{at: number, run: () => void, id: number}[]} */
    this.timers = [];
    this.nextTimer = 1;
    /** @type {FakeSocket[]} */
    this.sockets = [];
  }

  get socket() {
    return this.sockets[this.sockets.length - 1];
  }

  /** What a Connection takes from its surroundings. */
  options() {
    return {
      url: "ws://test/live",
      clock: () => this.now,
      random: () => this.random,
      setTimer: (/** @type {() => void} */ run, /** @type {number} */ ms) => {
        const id = this.nextTimer;
        this.nextTimer += 1;
        this.timers.push({ at: this.now + ms, run, id });
        return id;
      },
      clearTimer: (/** @type {number} */ id) => {
        this.timers = this.timers.filter((timer) => timer.id !== id);
      },
      createSocket: (/** @type {string} */ url, /** @type {string} */ protocol) => {
        const socket = new FakeSocket(url, protocol);
        this.sockets.push(socket);
        return /** @type {any} */ (socket);
      },
    };
  }

  /** Lets time pass; timers run in order. @param {number} ms */
  pass(ms) {
    const until = this.now + ms;
    for (;;) {
      const due = this.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.timers = this.timers.filter((timer) => timer !== due);
      this.now = Math.max(this.now, due.at);
      due.run();
    }
    this.now = until;
  }
}

export class FakeSocket {
  /** @param {string} url @param {string} protocol */
  constructor(url, protocol) {
    this.url = url;
    this.protocol = protocol;
    /** @type {any[]} */
    this.sent = [];
    this.closed = false;
    /** @type {any} */ this.onopen = null;
    /** @type {any} */ this.onmessage = null;
    /** @type {any} */ this.onclose = null;
  }

  /** @param {Uint8Array} data */
  send(data) {
    this.sent.push(decoder.decode(data));
  }

  close() {
    this.closed = true;
  }

  open() {
    this.onopen?.({});
  }

  /** @param {...any} envelopes one frame */
  push(...envelopes) {
    const frame = Buffer.concat(envelopes.map((one) => encoder.encode(one)));
    this.onmessage?.({ data: frame });
  }

  /** @param {number} code */
  cut(code) {
    this.onclose?.({ code });
  }

  /** Answers the join with `more`. @param {any} [more] */
  join(more = {}) {
    const [id] = this.sent.find(([, name]) => name === "join") ?? [];
    this.push([0, id, { you: { id: "v", name: "Ada", role: "guest" }, holds: [], orders: [], decided: [], ...more }]);
  }

  /** Commands sent, without the join. */
  get commands() {
    return this.sent.filter(([, name]) => name !== "join");
  }
}

/** Lets promises settle. */
export const settled = () => new Promise((done) => setImmediate(done));
