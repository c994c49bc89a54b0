// The reducer against the recovery vectors, and the law of chapter 3 under random cuts.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import {
  COMMENTS_MAX,
  EMPTY,
  apply,
  position,
  skippedCount,
  stateOf,
} from "../../web_client/store.js";

const vectors = JSON.parse(
  readFileSync(new URL("../../live/protocol_vectors.json", import.meta.url), "utf8"),
);

/** @param {any} room */
const image = ({ epoch, control, chat, facts, states, comments }) => ({
  epoch,
  control,
  chat,
  facts,
  states,
  comments,
});
/** @param {any} start */
const roomOf = (start) => (start === null ? EMPTY : apply(EMPTY, [8, structuredClone(start)]));

for (const { name, start, envelopes, room: wanted, skipped, ignored } of vectors.recovery) {
  test(`recovery: ${name}`, () => {
    let room = roomOf(start);
    let unchanged = 0;
    for (const envelope of envelopes) {
      const next = apply(room, envelope);
      if ([2, 3, 4, 6].includes(envelope[0]) && next === room) unchanged += 1;
      room = next;
    }
    if (wanted !== null) assert.deepEqual(image(room), wanted);
    assert.equal(skippedCount(room), skipped);
    assert.equal(unchanged, ignored);
  });
}

test("nothing is changed in place", () => {
  for (const { start, envelopes } of vectors.recovery) {
    let room = roomOf(start);
    for (const envelope of envelopes) {
      const before = structuredClone(room);
      const next = apply(room, envelope);
      assert.deepEqual(room, before);
      room = next;
    }
  }
});

const comment = (/** @type {number} */ n) => ({
  at: n,
  by: { id: "v", name: "Ada", role: "guest" },
  text: `no. ${n}`,
});
const SNAPSHOT = { epoch: "e", control: 0, chat: 0, facts: {}, states: {}, comments: [] };

test("only the newest comments are kept, and the gaps between them", () => {
  let room = apply(EMPTY, [8, SNAPSHOT]);
  for (let n = 1; n <= COMMENTS_MAX + 50; n += 1) {
    room = apply(room, n % 10 === 5 ? [6, 1, n] : [4, n, comment(n)]);
  }
  for (let n = 0; n < 80; n += 1) room = apply(room, [4, 1_000 + n, comment(n)]);
  assert.equal(room.comments.length, COMMENTS_MAX);
  assert.ok(room.gaps.every(([offset]) => offset > room.comments[0][0]));
});

test("before the first snapshot nothing is known and no position is sent", () => {
  assert.equal(apply(EMPTY, [2, 1, "pin", {}]), EMPTY);
  assert.equal(apply(EMPTY, [3, "likes", 1, 1]), EMPTY);
  assert.equal(position(EMPTY), undefined);
  assert.deepEqual(position(apply(EMPTY, [8, SNAPSHOT])), ["e", 0, 0]);
  assert.equal(stateOf(EMPTY, "likes"), undefined);
});

test("the law: a page that is cut anywhere and recovers equals one that never was", () => {
  let seed = 7;
  const random = (/** @type {number} */ n) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * n);
  };
  for (let round = 0; round < 200; round += 1) {
    const log = history(random);
    const steady = log.reduce(apply, apply(EMPTY, [8, SNAPSHOT]));
    const cut = random(log.length + 1);
    let page = log.slice(0, cut).reduce(apply, apply(EMPTY, [8, SNAPSHOT]));
    const [, controlAt, chatAt] = /** @type {any} */ (position(page));
    // The server sends what is after the position, control first, and every newest state; the
    // old socket's last frame may arrive as well.
    const again = log.slice(Math.max(0, cut - random(5)), cut);
    const newest = new Map(log.filter(([kind]) => kind === 3).map((one) => [one[1], one]));
    const missed = [
      ...again,
      ...log.filter(([kind, offset]) => kind === 2 && offset > controlAt),
      ...log.filter(([kind, offset]) => kind === 4 && offset > chatAt),
      ...newest.values(),
    ];
    page = missed.reduce(apply, page);
    assert.deepEqual(image(page), image(steady), `round ${round}`);
  }
});

/** @param {(n: number) => number} random @returns {any[]} */
function history(random) {
  let control = 0;
  let chat = 0;
  let version = 0;
  return Array.from({ length: 5 + random(40) }, () => {
    const kind = random(4);
    if (kind === 0) return [2, (control += 1), `fact${random(3)}`, random(3) === 0 ? null : random(9)];
    if (kind === 1) return [3, `state${random(3)}`, (version += 1), random(99)];
    if (kind === 2 && chat > 0) return [2, (control += 1), "retracted", { comment: 1 + random(chat) }];
    return [4, (chat += 1), comment(chat)];
  });
}
