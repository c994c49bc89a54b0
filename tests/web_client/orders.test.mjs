// What an order's file means: what may be taken, what it comes to, how far it is, what happened.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { Once } from "../../web_client/once.js";
import { addressLines, countryName } from "../../web_client/countries.js";
import { happenings, minorUnits, pickable, picksOf, progress, quoteOf, quoted, reduction, spoken, unitsByLine, worth } from "../../web_client/order-words.js";
import { Purchases } from "../../web_client/purchases.js";
import { Observable } from "../../web_client/observable.js";

const root = new URL("../../", import.meta.url);
const texts = JSON.parse(readFileSync(new URL("web_client/i18n/en.json", root), "utf8"));

const unit = (/** @type {number} */ position, /** @type {number} */ n, /** @type {any} */ more = {}) => ({
  position, n, sku: `S${position}`, state: "sold", amount: 1000, tax: 0, refunded: 0, shipment: null, in_return: null, ...more,
});
const line = (/** @type {string} */ sku, /** @type {number} */ quantity) => ({ sku, title: sku, quantity, price: { amount: 1000, currency: "EUR" } });
const file = (/** @type {any} */ more = {}) => ({
  order: { lines: [line("S0", 3), line("S1", 1)], total: { amount: 4000, currency: "EUR" } },
  units: [unit(0, 0, { refunded: 1000 }), unit(0, 1, { amount: 1001 }), unit(0, 2), unit(1, 0, { state: "shipped", shipment: "p1" })],
  refunds: [], returns: [], shipments: [], refundable: 3001, cancellable: true, ...more,
});

test("an action takes only units that are where it is possible", () => {
  const most = (/** @type {any} */ action) => pickable(file(), action).map((one) => [one.position, one.most]);
  assert.deepEqual(most("ship"), [[0, 3]]);
  assert.deepEqual(most("cancel"), [[0, 3]]);
  assert.deepEqual(most("refund"), [[0, 2], [1, 1]]);
  assert.deepEqual(most("return"), [[1, 1]]);
  const coming = file({ units: [unit(1, 0, { state: "delivered", in_return: "r1" })] });
  assert.deepEqual(pickable(coming, "return"), []);
});

test("money back is what is left of the units the server would choose, never more than is left at all", () => {
  assert.equal(worth(file(), [{ position: 0, quantity: 1 }], "refund"), 1001);
  assert.equal(worth(file(), [{ position: 0, quantity: 1 }], "cancel"), 0);
  assert.equal(worth(file(), [{ position: 0, quantity: 2 }, { position: 1, quantity: 1 }], "refund"), 3001);
  assert.equal(worth(file({ refundable: 500 }), [{ position: 0, quantity: 2 }], "refund"), 500);
});

test("what was chosen is sent without lines of nothing", () => {
  assert.deepEqual(picksOf({ 0: 2, 1: 0 }), [{ position: 0, quantity: 2 }]);
  assert.deepEqual(picksOf({}), []);
});

test("units stand by line and state", () => {
  assert.deepEqual(unitsByLine(file()).map((/** @type {any} */ one) => one.states), [[["sold", 3]], [["shipped", 1]]]);
});

test("every state of an order has its progress, its word and its sentence", () => {
  const source = readFileSync(new URL("commerce/orders.py", root), "utf8");
  const states = [...source.split("class OrderState")[1].split("class ")[0].matchAll(/^ {4}[A-Z_]+ = "(\w+)"/gm)].map((one) => one[1]);
  assert.equal(states.length, 8);
  for (const state of states) {
    assert.ok(texts[`order.state.${state}`] && texts[`order.words.${state}`], state);
    const { done, over } = progress(state);
    assert.ok(over || (done >= 0 && done <= 3), state);
  }
  assert.deepEqual(["placed", "paid", "shipped", "delivered"].map((state) => progress(state).done), [0, 1, 2, 3]);
  assert.equal(progress("cancelled").over, true);
});

test("every state of a unit, refund, return and parcel has a word for both sides", () => {
  const states = (/** @type {string} */ path, /** @type {string} */ name) => {
    const source = readFileSync(new URL(path, root), "utf8").split(`class ${name}(`)[1].split("\nclass ")[0];
    return [...source.matchAll(/^ {4}[A-Z_]+ = "(\w+)"/gm)].map((one) => one[1]);
  };
  const tables = [
    ["commerce/orders.py", "UnitState", ["unit", "my.unit"]],
    ["commerce/refunds.py", "RefundState", ["refund.state", "my.refund"]],
    ["commerce/fulfilment.py", "ReturnState", ["return.state", "my.return"]],
    ["commerce/fulfilment.py", "ShipmentState", ["shipment.state"]],
    ["commerce/ledger.py", "Account", ["account"]],
  ];
  for (const [path, name, prefixes] of /** @type {[string, string, string[]][]} */ (tables)) {
    const found = states(path, name);
    assert.ok(found.length >= 3, name);
    for (const prefix of prefixes) for (const state of found) assert.ok(texts[`${prefix}.${state}`], `${prefix}.${state}`);
  }
});

test("a timeline's line knows its amount, its parcel, and whether it is bookkeeping", () => {
  const whole = file({ refunds: [{ id: "f1", amount: 700 }], shipments: [{ id: "p1", carrier: "DHL", tracking: "T1" }] });
  const at = (/** @type {string} */ kind, /** @type {any} */ data) => happenings([{ at: 1, kind, actor: "", data }], whole)[0];
  assert.equal(at("pressed", { total: 2000, receipt: [2, 7] }).amount, 2000);
  assert.equal(at("refund.succeeded", { refund: "f1" }).amount, 700);
  assert.equal(at("refund.succeeded", { refund: "gone" }).amount, null);
  assert.equal(at("shipment.shipped", { shipment: "p1" }).values.tracking, "T1");
  assert.equal(at("order.paid", {}).books, false);
  assert.deepEqual([at("ledger", { ref: "capture:p" }).books, at("stock.hold", { held: -2 }).values.units], [true, 2]);
});

test("an amount is read in the currency's own decimals, and nothing else is", () => {
  assert.deepEqual(["12.50", "12,5", "12", "0.01", " 7 "].map((text) => minorUnits(text, 2)), [1250, 1250, 1200, 1, 700]);
  assert.equal(minorUnits("500", 0), 500);
  assert.equal(minorUnits("1.234", 3), 1234);
  for (const text of ["", "0", "-1", "1.234", "1e3", "1,2,3", "abc"]) assert.equal(minorUnits(text, 2), null, text);
  assert.equal(minorUnits("1.5", 0), null);
});

test("the same contents keep their key, other contents and a second time get another", () => {
  let n = 0;
  const once = new Once(() => `k${(n += 1)}`);
  assert.equal(once.key({ a: 1 }), once.key({ a: 1 }));
  assert.equal(once.key({ a: 2 }), "k2");
  once.done();
  assert.equal(once.key({ a: 2 }), "k3");
});

test("an older answer does not undo what was pushed after it", () => {
  const observable = new Observable({ holds: {}, orders: {}, payments: {}, press: null, notice: null });
  const purchases = new Purchases(/** @type {any} */ ({ observable, command: async () => {}, clock: () => 0, memory: {}, ask: async () => {} }));
  purchases.putOrder({ id: "o1", state: "shipped", updated_at: 20 });
  purchases.putOrder({ id: "o1", state: "paid", updated_at: 10 });
  assert.equal(observable.value.orders.o1.state, "shipped");
  purchases.putOrder({ id: "o1", state: "delivered", updated_at: 30 });
  assert.equal(observable.value.orders.o1.state, "delivered");
});

test("what a reservation will come to is what the server charges: half up, never below nothing", () => {
  assert.deepEqual(quoted(11_800, { percent_bp: 1500 }, 490), { off: 1770, total: 10_520 });
  assert.deepEqual(quoted(1, { percent_bp: 5000 }, 0), { off: 1, total: 0 });
  assert.deepEqual(quoted(99, { percent_bp: 250 }, 0), { off: 2, total: 97 });
  assert.deepEqual(quoted(500, { percent_bp: null, amount: 700 }, 490), { off: 500, total: 490 });
  assert.deepEqual(quoted(500, null, 0), { off: 0, total: 500 });
});

test("what stands is shown as it stands, and what goes beyond the sale's discount is the coupon's", () => {
  const terms = { discount: { percent_bp: 1250 }, shipping: 490 };
  assert.deepEqual(quoteOf(9600, null, null), { total: 9600, sale: 0, coupon: 0, shipping: null });
  assert.deepEqual(quoteOf(9600, terms, null), { total: 8890, sale: 1200, coupon: 0, shipping: 490 });
  const paid = { total: 8050, discount: 2040, shipping: 490 };
  assert.deepEqual(quoteOf(9600, terms, paid), { total: 8050, sale: 1200, coupon: 840, shipping: 490 });
  assert.deepEqual(quoteOf(9600, null, paid), { total: 8050, sale: 2040, coupon: 0, shipping: 490 });
});

test("a host takes off a percentage up to the whole or an amount, never nothing", () => {
  assert.deepEqual(reduction("percent", "12.5", 0), { percent_bp: 1250 });
  assert.deepEqual(reduction("percent", "100", 2), { percent_bp: 10_000 });
  assert.equal(reduction("percent", "100.01", 2), null);
  assert.deepEqual(reduction("amount", "200", 2), { amount: 20_000 });
  assert.equal(reduction("amount", "0", 2), null);
  assert.equal(reduction("amount", "1.5", 0), null);
});

test("what was sold is not said to be below nothing", () => {
  assert.equal(spoken("sales", -10_129), 10_129);
  assert.equal(spoken("provider_clearing", 10_520), 10_520);
  assert.equal(spoken("discounts", 1770), 1770);
  assert.ok(Object.is(spoken("tax_payable", 0), 0));
});

test("an address ends with a country that people know, and leaves out what is empty", () => {
  const address = { line1: "12 St James's Square", line2: "", city: "London", postcode: "SW1Y 4JH", region: "", country: "GB" };
  assert.deepEqual(addressLines(address, "en"), ["12 St James's Square", "SW1Y 4JH", "London", "United Kingdom"]);
  assert.equal(countryName("GB", "zh"), "英国");
  assert.equal(countryName("Utopia", "en"), "Utopia");
  assert.deepEqual(addressLines(null, "en"), []);
});
