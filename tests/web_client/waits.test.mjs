// The wait list of a page: one rid per entry, the place in line, and what is told.

import assert from "node:assert/strict";
import test from "node:test";
import { Observable } from "../../web_client/observable.js";
import { offerPhase, phase } from "../../web_client/offers.js";
import { Refusal } from "../../web_client/refusal.js";
import { Waits } from "../../web_client/waits.js";

/** @param {(name: string, params: any) => Promise<any>} command */
function page(command) {
  const observable = new Observable({ waits: {}, press: null, notice: null });
  /** @type {any[]} */
  const sent = [];
  const waits = new Waits({
    observable,
    clock: () => 1_800_000_000_000,
    sleep: async () => {},
    command: async (name, params) => {
      sent.push([name, params]);
      return command(name, params);
    },
  });
  return { observable, waits, sent };
}

const entry = (/** @type {any} */ params, state = "waiting", position = 2) => ({ ...params, state, position });

test("an answer that is lost is asked for again under the same rid, and the place is kept", async () => {
  let lost = 2;
  const { observable, waits, sent } = page(async (_name, params) => {
    if (lost-- > 0) throw new Refusal("busy");
    return entry(params);
  });
  const joined = await waits.join("d", "A");
  assert.equal(sent.length, 3);
  assert.equal(new Set(sent.map(([, params]) => params.rid)).size, 1);
  assert.equal(waits.of("d", "A"), joined);
  assert.equal(observable.value.press, null);
});

test("a refusal is shown as that of a press", async () => {
  const { observable, waits, sent } = page(async () => {
    throw new Refusal("limit_reached");
  });
  assert.equal(await waits.join("d", "A"), null);
  assert.equal(sent.length, 1);
  assert.equal(observable.value.press.refusal.code, "limit_reached");
});

test("what is told changes the entry, and an end is said in words", async () => {
  const { observable, waits } = page(async (_name, params) => entry(params));
  const joined = await waits.join("d", "A");
  waits.told("wait", { ...joined, position: 1 });
  assert.equal(waits.of("d", "A").position, 1);
  assert.equal(observable.value.notice, null);
  waits.told("wait", { ...joined, state: "offered", position: 0 });
  assert.equal(waits.of("d", "A"), undefined);
  assert.equal(observable.value.notice.key, "wait.offered");
  waits.joined({ waits: [] });
  assert.deepEqual(observable.value.waits, {});
});

test("a raffle is neither open nor sold out until it is drawn", () => {
  const drop = { state: "open", opens_at: 10, closes_at: null, raffle: { draws_at: 20, drawn_at: null } };
  assert.equal(phase(drop, 5), "opens");
  assert.equal(phase(drop, 15), "raffle");
  assert.equal(phase(drop, 25), "raffle");
  assert.equal(phase({ ...drop, raffle: { draws_at: 20, drawn_at: 21 } }, 25), "open");
  const offer = { items: [{ sku: "A", left: 0, drop }] };
  assert.equal(offerPhase(/** @type {any} */ (offer), 15), "raffle");
});
