/**
 * What an order's file means to a person. Pure: no views, no requests, no texts.
 *
 * Responsible for which units an action may take, what giving them back comes to (the server picks
 * the units; this mirrors its choice, so the amount can be shown before), how far an order has come,
 * and what a line of its timeline is called. The server decides; this only explains.
 */

/** @typedef {"cancel" | "refund" | "ship" | "return"} Action */
/** @typedef {{position: number, quantity: number}} Pick */

/** The steps of an order that goes well, in their order. */
export const STEPS = Object.freeze(["paid", "shipped", "delivered"]);

/** A hundred percent in hundredths of a percent. */
const WHOLE_BP = 10_000;

/** Unit states in which an action is possible. */
const FITTING = {
  cancel: ["sold"],
  ship: ["sold"],
  return: ["shipped", "delivered"],
};

/** Accounts that grow on the credit side, where the ledger's amounts are negative. */
const CREDIT = new Set(["sales", "shipping_income", "tax_payable", "refunds_payable", "unallocated_money"]);

/** Kinds of the timeline that are bookkeeping: true, but not what happened to a person. */
const BOOKS = [/^stock\./, /^ledger$/, /^provider\./];

/**
 * @param {any} unit
 * @param {Action} action
 */
function fits(unit, action) {
  if (action === "refund") return unit.amount > unit.refunded;
  return FITTING[action].includes(unit.state) && (action !== "return" || unit.in_return === null);
}

/**
 * How many units of each line an action may take, lines without any left out.
 * @param {any} file
 * @param {Action} action
 * @returns {{position: number, sku: string, title: string, most: number}[]}
 */
export function pickable(file, action) {
  return file.order.lines
    .map((/** @type {any} */ line, /** @type {number} */ position) => ({
      position,
      sku: line.sku,
      title: line.title,
      most: file.units.filter((/** @type {any} */ unit) => unit.position === position && fits(unit, action)).length,
    }))
    .filter((/** @type {any} */ line) => line.most > 0);
}

/**
 * Minor units that go back for these units, as the server would choose them.
 * @param {any} file
 * @param {Pick[]} picks
 * @param {Action} action
 */
export function worth(file, picks, action) {
  let sum = 0;
  for (const { position, quantity } of picks) {
    const here = file.units.filter((/** @type {any} */ unit) => unit.position === position && fits(unit, action));
    for (const unit of here.slice(0, quantity)) sum += unit.amount - unit.refunded;
  }
  return Math.min(sum, file.refundable);
}

/**
 * The chosen numbers as the API takes them; zeros are left out.
 * @param {Record<number, number>} chosen by position
 * @returns {Pick[]}
 */
export function picksOf(chosen) {
  return Object.entries(chosen)
    .map(([position, quantity]) => ({ position: Number(position), quantity }))
    .filter((pick) => pick.quantity > 0);
}

/**
 * Units of an order by line and state, for a list: [{position, title, states: [[state, n]…]}].
 * @param {any} file
 */
export function unitsByLine(file) {
  return file.order.lines.map((/** @type {any} */ line, /** @type {number} */ position) => {
    /** @type {Map<string, number>} */
    const states = new Map();
    for (const unit of file.units) {
      if (unit.position === position) states.set(unit.state, (states.get(unit.state) ?? 0) + 1);
    }
    return { position, sku: line.sku, title: line.title, price: line.price, quantity: line.quantity, states: [...states] };
  });
}

/**
 * How far an order has come: the number of `STEPS` behind it, and whether it has left that way.
 * @param {string} state
 * @returns {{done: number, over: boolean}}
 */
export function progress(state) {
  if (["cancelled", "cancelling"].includes(state)) return { done: 0, over: true };
  if (state === "closed") return { done: 2, over: true };
  const done = { placed: 0, paid: 1, partly_shipped: 1, shipped: 2, delivered: 3 }[state] ?? 0;
  return { done, over: false };
}

/**
 * A ledger's amount as people say it: what was sold is not "minus".
 * @param {string} account
 * @param {number} amount minor units, debits positive
 */
export const spoken = (account, amount) => (CREDIT.has(account) ? 0 - amount : amount);

/**
 * What a reservation will come to, as the server computes it (half up, never below nothing).
 * @param {number} goods minor units
 * @param {{percent_bp?: number | null, amount?: number | null} | null} discount
 * @param {number} shipping
 * @returns {{off: number, total: number}}
 */
export function quoted(goods, discount, shipping) {
  const rule = discount ? (discount.amount ?? Math.floor((2 * goods * (discount.percent_bp ?? 0) + WHOLE_BP) / (2 * WHOLE_BP))) : 0;
  const off = Math.min(rule, goods);
  return { off, total: goods - off + shipping };
}

/**
 * What a host typed to be taken off, as the server takes it; null when it is nothing of the kind.
 * @param {string} kind percent or amount
 * @param {string} text
 * @param {number} digits decimals of the currency
 * @returns {{percent_bp: number} | {amount: number} | null}
 */
export function reduction(kind, text, digits) {
  const value = minorUnits(text, kind === "percent" ? 2 : digits);
  if (value === null || (kind === "percent" && value > WHOLE_BP)) return null;
  return kind === "percent" ? { percent_bp: value } : { amount: value };
}

/**
 * What a reservation comes to, part by part: as its order or its payment page says once there is
 * one, before that by the sale's discount and the shop's shipping. What is taken off beyond the
 * sale's discount is the coupon's.
 * @param {number} goods minor units
 * @param {{discount: any, shipping: number} | null} terms null: not known yet
 * @param {{total: number, discount: number, shipping: number} | null} fixed what stands already
 * @returns {{total: number, sale: number, coupon: number, shipping: number | null}}
 */
export function quoteOf(goods, terms, fixed) {
  const { off, total } = quoted(goods, terms?.discount ?? null, terms?.shipping ?? 0);
  if (!fixed) return { total, sale: off, coupon: 0, shipping: terms?.shipping ?? null };
  const sale = terms ? Math.min(off, fixed.discount) : fixed.discount;
  return { total: fixed.total, sale, coupon: fixed.discount - sale, shipping: fixed.shipping };
}

/**
 * The lines of a timeline: a key, what belongs into the sentence, and whether it is bookkeeping.
 * @param {any[]} events
 * @param {any} file
 * @returns {{at: number, kind: string, books: boolean, actor: string, amount: number | null, values: Record<string, unknown>}[]}
 */
export function happenings(events, file) {
  return events.map(({ at, kind, actor, data }) => ({
    at,
    kind,
    books: BOOKS.some((pattern) => pattern.test(kind)),
    actor: actor ?? "",
    amount: amountOf(kind, data, file),
    values: {
      kind: kind.replace(/[._]/g, " "),
      count: Array.isArray(data.units) ? data.units.length : "",
      claim: Array.isArray(data.receipt) ? data.receipt : null,
      type: data.type ?? "",
      carrier: shipmentOf(file, data.shipment)?.carrier ?? "",
      tracking: shipmentOf(file, data.shipment)?.tracking ?? "",
      sku: data.sku ?? "",
      units: Math.max(...[data.on_hand, data.held, data.committed].map((n) => Math.abs(n ?? 0)), 0),
      ref: String(data.ref ?? "").split(":")[0].replace(/_/g, " "),
      postings: data.postings ?? null,
      goods: data.goods ?? "",
    },
  }));
}

/**
 * @param {string} kind
 * @param {any} data
 * @param {any} file
 * @returns {number | null} minor units
 */
function amountOf(kind, data, file) {
  if (kind === "pressed") return data.total;
  if (typeof data.amount === "number") return data.amount;
  if (kind.startsWith("refund.")) {
    return file.refunds.find((/** @type {any} */ one) => one.id === data.refund)?.amount ?? null;
  }
  return null;
}

/**
 * @param {any} file
 * @param {unknown} id
 */
function shipmentOf(file, id) {
  return file.shipments.find((/** @type {any} */ one) => one.id === id);
}

/**
 * "12.50" typed by a person as minor units of a currency; null when it is no amount above zero.
 * @param {string} text
 * @param {number} digits decimals of the currency
 */
export function minorUnits(text, digits) {
  const found = /^\s*(\d{1,12})(?:[.,](\d*))?\s*$/.exec(text);
  if (!found || (found[2] ?? "").length > digits) return null;
  const amount = Number(found[1]) * 10 ** digits + Number((found[2] ?? "").padEnd(digits, "0") || 0);
  return amount > 0 ? amount : null;
}
