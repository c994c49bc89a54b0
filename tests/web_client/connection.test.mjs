// The state machine of the line, with a fake socket, clock and dice.

import assert from "node:assert/strict";
import test from "node:test";
import { Connection, JOIN_TIMEOUT_MS, PENDING_MAX } from "../../web_client/connection.js";
import { BACKOFF_CAP_MS, SILENCE_MS } from "../../web_client/protocol.js";
import { World, settled } from "./bench.mjs";

/** @param {any} [more] */
function line(more = {}) {
  const world = new World();
  /** @type {any[]} */ const envelopes = [];
  /** @type {string[]} */ const states = [];
  const connection = new Connection({
    ...world.options(),
    join: () => ({ show: "s", token: "t" }),
    onEnvelopes: (found) => envelopes.push(...found),
    onStatus: (status) => states.push(status.state),
    ...more,
  });
  return { world, connection, envelopes, states };
}

/** @param {any} [more] @param {any} [reply] */
function joined(more, reply) {
  const made = line(more);
  made.connection.start();
  made.world.socket.open();
  made.world.socket.join(reply);
  return made;
}

test("it goes disconnected, connecting, joining, connected", () => {
  const { connection, states, world } = line();
  assert.equal(connection.status.state, "disconnected");
  connection.start();
  assert.equal(world.socket.protocol, "live.v1");
  world.socket.open();
  assert.deepEqual(world.socket.sent[0], [1, "join", { show: "s", token: "t", undecided: [] }]);
  world.socket.join();
  assert.deepEqual(states, ["connecting", "joining", "connected"]);
});

test("envelopes of a frame arrive together, replies and beats left out", async () => {
  const { connection, world, envelopes } = joined();
  const ping = connection.command("ping");
  const [[id]] = world.socket.commands;
  world.socket.push([0, id, { now_ms: 5 }], [3, "likes", 1, 2], [7, 6], [4, 1, {}]);
  assert.deepEqual(envelopes, [[3, "likes", 1, 2], [4, 1, {}]]);
  assert.deepEqual(await ping, { now_ms: 5 });
});

test("a refusal is thrown with its code, details and time", async () => {
  const { connection, world } = joined();
  const said = connection.command("comment", { rid: "r", text: "x" });
  const [[id]] = world.socket.commands;
  world.socket.push([1, id, { code: "rate_limited", message: "m", retry_after_ms: 900, details: { a: 1 } }]);
  await assert.rejects(said, { code: "rate_limited", retryAfterMs: 900, details: { a: 1 }, temporary: true });
});

test("it waits with full jitter, longer each time, up to the cap, and starts over after a join", () => {
  const { connection, world } = joined();
  world.random = 1;
  const waits = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    world.socket.cut(1006);
    waits.push(/** @type {number} */ (connection.status.retryAt) - world.now);
    world.pass(waits[attempt]);
    assert.equal(world.sockets.length, attempt + 2);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, BACKOFF_CAP_MS, BACKOFF_CAP_MS, BACKOFF_CAP_MS]);
  world.socket.open();
  world.socket.join();
  world.random = 0;
  world.socket.cut(4000);
  assert.equal(connection.status.retryAt, world.now);
  assert.equal(connection.status.attempt, 1);
});

test("after a code that forbids it, it does not come back", async () => {
  for (const code of [4500, 4501, 4502, 1008]) {
    const { connection, world } = joined();
    const waiting = connection.command("comment", { rid: "r", text: "x" });
    world.socket.cut(code);
    await assert.rejects(waiting, { code: "connection_lost" });
    world.pass(3_600_000);
    assert.equal(world.sockets.length, 1);
    assert.equal(connection.status.closedWith, code);
    await assert.rejects(connection.command("buy", { rid: "q" }), { code: "offline" });
  }
});

test("comment, buy and cancel are repeated after a cut with the same rid; a buy says that it is a repetition", async () => {
  const { connection, world } = joined();
  const bought = connection.command("buy", { rid: "buy-1", drop: "d", lines: [["A", 1]] });
  const said = connection.command("comment", { rid: "say-1", text: "x" });
  const lost = connection.command("pin_product", { product: "p" });
  world.socket.cut(1006);
  await assert.rejects(lost, { code: "connection_lost" });
  world.pass(BACKOFF_CAP_MS);
  world.socket.open();
  assert.deepEqual(world.socket.sent[0][2].undecided, ["buy-1"]);
  world.socket.join({ decided: [{ rid: "buy-1", state: "unknown" }] });
  assert.deepEqual(
    world.socket.commands.map(([, name, params]) => [name, params]),
    [
      ["buy", { rid: "buy-1", drop: "d", lines: [["A", 1]], retry: true }],
      ["comment", { rid: "say-1", text: "x" }],
    ],
  );
  for (const [id] of world.socket.commands) world.socket.push([0, id, { ok: id }]);
  assert.ok((await bought).ok && (await said).ok);
});

test("a buy that was decided while the line was down is answered by the join", async () => {
  const { connection, world } = joined();
  const bought = connection.command("buy", { rid: "buy-1" });
  world.socket.cut(1006);
  world.pass(BACKOFF_CAP_MS);
  world.socket.open();
  world.socket.join({ decided: [{ rid: "buy-1", state: "held" }] });
  assert.deepEqual(await bought, { rid: "buy-1", state: "held" });
  assert.equal(world.socket.commands.length, 0);
});

test("what is pressed without a line waits for one and is sent once, as a first attempt", () => {
  const { connection, world } = line();
  void connection.command("buy", { rid: "buy-1" });
  connection.start();
  world.socket.open();
  assert.deepEqual(world.socket.sent[0][2].undecided, []);
  world.socket.join();
  assert.deepEqual(world.socket.commands.map(([, name, params]) => [name, params]), [["buy", { rid: "buy-1" }]]);
});

test("what is sent while a join is being answered is sent once", () => {
  /** @type {any} */
  let connection;
  const made = line({ onJoined: () => void connection.command("take_console") });
  connection = made.connection;
  connection.start();
  made.world.socket.open();
  made.world.socket.join();
  assert.equal(made.world.socket.commands.length, 1);
});

test("other commands are refused without a line, and too many waiting ones are", async () => {
  const { connection } = line();
  await assert.rejects(connection.command("pin_product"), { code: "offline" });
  const waiting = Array.from({ length: PENDING_MAX }, (_, n) => connection.command("buy", { rid: `${n}` }));
  await assert.rejects(connection.command("buy", { rid: "more" }), { code: "busy" });
  connection.stop();
  for (const one of waiting) await assert.rejects(one, { code: "connection_lost" });
});

test("undecided presses of an earlier page are asked about, each once and no more than eight", () => {
  const rids = Array.from({ length: 12 }, (_, n) => `rid-${n}`);
  const { connection, world } = line({ join: () => ({ show: "s", undecided: rids }) });
  connection.start();
  world.socket.open();
  assert.deepEqual(world.socket.sent[0][2].undecided, rids.slice(0, 8));
});

test("silence is a cut: 45 s without a word, and any word counts", () => {
  const { connection, world } = joined();
  world.pass(SILENCE_MS - 1_000);
  world.socket.push([7, world.now]);
  world.pass(SILENCE_MS - 1);
  assert.equal(connection.status.state, "connected");
  world.pass(1);
  assert.equal(connection.status.state, "disconnected");
  assert.equal(world.socket.closed, true);
});

test("a socket that never opens or never joins is given up", () => {
  const { connection, world } = line();
  connection.start();
  world.pass(JOIN_TIMEOUT_MS);
  assert.equal(connection.status.state, "disconnected");
  world.pass(500);
  world.socket.open();
  world.pass(JOIN_TIMEOUT_MS);
  assert.equal(connection.status.state, "disconnected");
});

test("a frame that cannot be read is a cut", () => {
  const { connection, world, envelopes } = joined();
  world.socket.onmessage({ data: new Uint8Array([0xc1]) });
  assert.equal(connection.status.state, "disconnected");
  assert.deepEqual(envelopes, []);
});

test("after goodbye it waits as long as it was told, then comes back by itself", () => {
  const { world } = joined();
  world.random = 0;
  world.socket.push([5, "goodbye", { after_ms: 3_000 }]);
  world.pass(1_000);
  world.socket.cut(4000);
  world.pass(1_999);
  assert.equal(world.sockets.length, 1);
  world.pass(1);
  assert.equal(world.sockets.length, 2);
});

test("after goodbye it leaves even if the node does not close it, and goes where it was sent", () => {
  const { world } = joined();
  world.socket.push([5, "goodbye", { after_ms: 2_000, url: "wss://other/live" }]);
  world.pass(3_000);
  assert.equal(world.sockets[0].closed, true);
  assert.equal(world.socket.url, "wss://other/live");
});

test("a refused token is renewed once and the join repeated on the same socket", async () => {
  let renewals = 0;
  const made = line({ renewToken: async () => (renewals += 1) > 0 });
  made.connection.start();
  made.world.socket.open();
  made.world.socket.push([1, 1, { code: "token_expired", message: "m" }]);
  await settled();
  assert.deepEqual(made.world.socket.sent.map(([id, name]) => [id, name]), [[1, "join"], [2, "join"]]);
  made.world.socket.push([1, 2, { code: "token_expired", message: "m" }]);
  await settled();
  assert.equal(renewals, 1);
  assert.equal(made.connection.status.refused?.code, "token_expired");
  made.world.pass(3_600_000);
  assert.equal(made.world.sockets.length, 1);
});

test("a join that is refused for now is tried again, one that is refused for good is not", async () => {
  const { connection, world } = line();
  connection.start();
  world.socket.open();
  world.socket.push([1, 1, { code: "busy", message: "m", retry_after_ms: 5_000 }]);
  await settled();
  world.pass(4_999);
  assert.equal(world.sockets.length, 1);
  world.pass(600);
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  world.socket.push([1, 2, { code: "unknown_show", message: "m" }]);
  await settled();
  assert.equal(connection.status.refused?.code, "unknown_show");
  world.pass(3_600_000);
  assert.equal(world.sockets.length, 2);
});

test("an old socket cannot speak any more", () => {
  const { connection, world, envelopes } = joined();
  const old = world.socket;
  connection.restart();
  old.push([3, "likes", 1, 1]);
  old.cut(4500);
  assert.deepEqual(envelopes, []);
  assert.equal(connection.status.state, "connecting");
});

test("the server's clock is the latest beat that travelled fastest", () => {
  const { connection, world } = joined(undefined, { now_ms: 2_000_000 });
  assert.equal(connection.serverNow(), 2_000_000);
  world.pass(1_000);
  world.socket.push([7, 2_000_900]); // 100 ms late
  assert.equal(connection.serverNow(), 2_001_000);
  world.socket.push([7, 2_001_040]); // the join was late
  assert.equal(connection.serverNow(), 2_001_040);
});

test("a page that is looked at again does not wait, unless it was told to", () => {
  const { connection, world } = joined();
  world.socket.cut(1006);
  connection.wake();
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  world.socket.join();
  world.socket.push([5, "goodbye", { after_ms: 9_000 }]);
  world.socket.cut(4000);
  connection.wake();
  assert.equal(world.sockets.length, 2);
});

test("likes are told without an answer, and dropped without a line", () => {
  const { connection, world } = joined();
  connection.tell("like", { n: 3 });
  assert.deepEqual(world.socket.commands, [[0, "like", { n: 3 }]]);
  world.socket.cut(1006);
  connection.tell("like", { n: 3 });
  assert.equal(world.sockets[0].commands.length, 1);
});

test("stopping leaves no timer", () => {
  const { connection, world } = joined();
  world.socket.cut(1006);
  connection.stop();
  assert.deepEqual(world.timers, []);
});
