// Offers, money, own comments and the life of a press: the parts between the room and the views.

import assert from "node:assert/strict";
import test from "node:test";
import { Chat, timeline } from "../../web_client/chat.js";
import { formatCountdown, formatMoney } from "../../web_client/money.js";
import { Observable } from "../../web_client/observable.js";
import { itemPhase, offerLeft, offerPhase, offers, phase, quantityMax } from "../../web_client/offers.js";
import { importReport, refusedReport } from "../../web_client/products.js";
import { Purchases } from "../../web_client/purchases.js";
import { Refusal } from "../../web_client/refusal.js";
import { EMPTY, apply } from "../../web_client/store.js";

const eur = (/** @type {number} */ amount) => ({ amount, currency: "EUR" });
const line = (/** @type {string} */ sku, product = "p1") => ({
  sku, product, title: sku, image: null, price: eur(500), units: null,
});
const drop = (/** @type {any} */ more = {}) => ({
  id: "d1", title: "", state: "open", opens_at: 1000, closes_at: null, hold_s: 60, per_viewer: null,
  lines: [line("A")], ...more,
});
const room = (/** @type {any} */ facts, /** @type {any} */ states = {}) =>
  apply(EMPTY, [8, { epoch: "e", control: 1, chat: 1, facts, states, comments: [] }]);

test("a drop opens and closes by the clock, not by its fact", () => {
  const early = drop({ state: "scheduled", closes_at: 3000 });
  assert.equal(phase(early, 999), "opens");
  assert.equal(phase(early, 1000), "open");
  assert.equal(phase(early, 3000), "closed");
  assert.equal(phase(drop({ state: "open" }), 10), "opens");
  assert.equal(phase(drop({ state: "sold_out" }), 2000), "sold_out");
  assert.equal(phase(null, 0), "none");
});

test("the pinned product comes first, with the sale's price, stock and limits", () => {
  const facts = {
    pin: {
      product: "p1", title: "Mug", description: "", image: null, pinned_at: 1,
      skus: [{ sku: "A", title: "a", price: eur(900) }, { sku: "B", title: "b", price: eur(900) }],
    },
    "drop:d1": drop({ per_viewer: 2 }),
    "drop:d2": drop({ id: "d2", lines: [line("C", "p2")] }),
    "drop:d0": drop({ id: "d0", state: "closed", lines: [line("Z", "p9")] }),
  };
  const found = offers(room(facts, { "stock:A": [1, 7] }), 2000);
  assert.deepEqual(found.map((one) => one.product), ["p1", "p2"]);
  const [first] = found;
  assert.deepEqual(first.items.map((item) => [item.sku, item.price.amount, item.left]), [["A", 500, 7], ["B", 900, null]]);
  assert.equal(offerPhase(first, 2000), "open");
  assert.equal(offerLeft(first), 7);
  assert.equal(quantityMax(first.items[0]), 2);
  assert.equal(itemPhase(first.items[1], 2000), "none");
});

test("no stock is sold out before the fact says so", () => {
  const [offer] = offers(room({ "drop:d1": drop() }, { "stock:A": [1, 0] }), 2000);
  assert.equal(offerPhase(offer, 2000), "sold_out");
});

test("money and time are said in the page's language", () => {
  assert.equal(formatMoney(eur(123_450), "en"), "€1,234.50");
  assert.equal(formatMoney({ amount: 500, currency: "JPY" }, "en"), "¥500");
  assert.equal(formatMoney({ amount: 1_234, currency: "KWD" }, "en").replace(/\s/, " "), "KWD 1.234");
  assert.equal(formatMoney(null, "en"), "");
  assert.equal(formatCountdown(125_000), "2:05");
  assert.equal(formatCountdown(1), "0:01");
  assert.equal(formatCountdown(-5), "0:00");
  assert.equal(formatCountdown(3_725_000), "1:02:05");
});

test("own comments stand in their place once, and pending ones at the end", () => {
  const said = (/** @type {string} */ text) => ({ at: 1, by: { id: "me", name: "Ada", role: "guest" }, text });
  let now = apply(EMPTY, [8, { epoch: "e", control: 0, chat: 1, facts: {}, states: {}, comments: [[1, said("a")]] }]);
  /** @type {any[]} */
  const mine = [
    { rid: "r3", text: "c", state: "sent", offset: 3, comment: said("c") },
    { rid: "r9", text: "z", state: "pending" },
  ];
  const keys = () => timeline(now, mine, "me").map((item) => item.key);
  assert.deepEqual(keys(), ["c1", "c3", "mr9"]);
  now = apply(now, [6, 1, 2]);
  now = apply(now, [4, 3, said("c")]);
  now = apply(now, [4, 4, said("d")]);
  assert.deepEqual(keys(), ["c1", "g2", "c3", "c4", "mr9"]);
  now = apply(now, [2, 1, "retracted", { comment: 3 }]);
  assert.deepEqual(keys(), ["c1", "g2", "c4", "mr9"]);
});

test("a refused comment keeps its text, reason and time, and is sent again with the same rid", async () => {
  const observable = new Observable({ mine: /** @type {any[]} */ ([]) });
  /** @type {string[]} */ const rids = [];
  let refuse = true;
  const chat = new Chat(observable, async (_, params) => {
    rids.push(String(params.rid));
    if (refuse) throw new Refusal("rate_limited", "", { retryAfterMs: 900 });
    return { offset: 5, comment: {} };
  }, () => 1_000);
  await chat.send("hello");
  const [failed] = observable.value.mine;
  assert.deepEqual([failed.state, failed.text, failed.refusal.code, failed.retryAt], ["failed", "hello", "rate_limited", 1_900]);
  refuse = false;
  await chat.again(failed);
  assert.equal(observable.value.mine[0].state, "sent");
  assert.equal(rids[0], rids[1]);
  chat.settle();
  assert.deepEqual(observable.value.mine, []);
});

/** @param {(name: string, params: any) => Promise<any>} command */
function shop(command) {
  /** @type {Observable<any>} */
  const observable = new Observable({ press: null, holds: {}, orders: {}, payments: {}, notice: null });
  /** @type {any[]} */ const kept = [];
  /** @type {number[]} */ const waits = [];
  const purchases = new Purchases({
    observable, command, clock: () => 1_000,
    sleep: async (ms) => void waits.push(ms),
    memory: {
      keep: (press) => kept.push(press.rid),
      forget: (rid) => kept.includes(rid) && kept.splice(kept.indexOf(rid), 1),
    },
    ask: async (rid) => ({ rid, state: "expired" }),
  });
  return { purchases, observable, kept, waits };
}
const held = (/** @type {string} */ rid, state = "held") => ({ rid, state, lines: [], total: eur(1) });

test("a busy answer is asked again with the same rid until it is decided", async () => {
  /** @type {any[]} */ const sent = [];
  const { purchases, observable, kept, waits } = shop(async (_, params) => {
    sent.push(params);
    if (sent.length < 3) throw new Refusal("busy", "", { retryAfterMs: 700 });
    return held(params.rid);
  });
  const hold = await purchases.buy("d", [["A", 1]], 500);
  assert.equal(hold.rid, sent[0].rid);
  assert.deepEqual(sent.map((one) => [one.rid === sent[0].rid, one.retry]), [[true, undefined], [true, true], [true, true]]);
  assert.deepEqual(waits, [700, 800]);
  assert.deepEqual(kept, []);
  assert.equal(observable.value.press, null);
});

test("a double click is one press", async () => {
  let sent = 0;
  const { purchases } = shop(async (_, params) => {
    sent += 1;
    return held(params.rid);
  });
  await Promise.all([purchases.buy("d", [["A", 1]]), purchases.buy("d", [["A", 1]])]);
  assert.equal(sent, 1);
});

test("a final refusal ends the press; an undecided one is kept and can be pressed again", async () => {
  let code = "sold_out";
  /** @type {string[]} */ const rids = [];
  const { purchases, observable, kept } = shop(async (_, params) => {
    rids.push(params.rid);
    if (code) throw new Refusal(code);
    return held(params.rid);
  });
  assert.equal(await purchases.buy("d", [["A", 1]]), null);
  assert.deepEqual([observable.value.press.state, kept.length], ["refused", 0]);
  code = "connection_lost";
  await purchases.buy("d", [["A", 1]]);
  assert.deepEqual([observable.value.press.state, kept.length], ["undecided", 1]);
  code = "";
  const hold = await purchases.buyAgain();
  assert.equal(hold.rid, rids[1]);
  assert.deepEqual([observable.value.press, kept.length], [null, 0]);
});

test("after a reload the join decides: held, or never arrived and nothing is pressed again", async () => {
  const { purchases, observable, kept } = shop(async () => assert.fail("nothing is sent"));
  kept.push("r1", "r2");
  purchases.joined({ holds: [], orders: [], decided: [held("r1"), { rid: "r2", state: "unknown" }] });
  assert.equal(observable.value.holds.r1.state, "held");
  assert.deepEqual(kept, []);
  assert.equal(observable.value.notice.key, "buy.never_arrived");
});

test("a hold that ended while nobody listened is asked for, and an end is not taken back", async () => {
  const { purchases, observable } = shop(async () => ({}));
  purchases.put(held("r1"));
  purchases.joined({ holds: [], orders: [], decided: [] });
  await new Promise((done) => setImmediate(done));
  assert.equal(observable.value.holds.r1.state, "expired");
  purchases.told("hold", held("r1", "held"));
  assert.equal(observable.value.holds.r1.state, "expired");
});

test("the report of an import is told product by product, and a refused file row by row", () => {
  const done = importReport({
    counts: { products_created: 2, products_changed: 1, products_unchanged: 0 },
    products: [{ line: 2, title: "Mug", outcome: "created" }],
  });
  assert.deepEqual(done.counts, [["created", 2], ["changed", 1], ["unchanged", 0]]);
  assert.deepEqual(done.rows[0], { line: 2, what: "Mug", outcome: "created", text: "" });
  const refused = refusedReport({ total: 9, problems: [{ line: 4, column: "Variant Price", sentence: "No price." }] });
  assert.deepEqual(refused?.counts, [["refused", 9]]);
  assert.equal(refused?.rows[0].text, "No price.");
  assert.equal(refusedReport({}), null);
});
