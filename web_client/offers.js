/**
 * What can be bought now, as a viewer sees it: products with their sale, stock and button. Pure.
 *
 * Responsible for putting the facts `pin` and `drop:<id>` and the states `stock:<sku>` together. A
 * drop opens and closes by the server's clock, not when a fact arrives, so everything here takes
 * the server's time as an argument.
 */

/**
 * @typedef {object} Item one SKU of an offer
 * @property {string} sku
 * @property {string} title
 * @property {import("./protocol.js").Money} price
 * @property {import("./protocol.js").Money | null} compareAt
 * @property {number | null} left units that can be bought now; null when not known
 * @property {any | null} drop the drop that sells it
 */
/**
 * @typedef {object} Offer
 * @property {string} product
 * @property {string} title
 * @property {string} description
 * @property {string | null} image
 * @property {boolean} pinned
 * @property {Item[]} items
 * @property {any | null} drop the drop that decides what the button says
 */
/** @typedef {"none" | "opens" | "open" | "raffle" | "sold_out" | "closed"} Phase */

/**
 * Where a drop is at `now`.
 * @param {any | null} drop
 * @param {number} now server time, milliseconds
 * @returns {Phase}
 */
export function phase(drop, now) {
  if (!drop) return "none";
  if (drop.state === "closed" || (drop.closes_at !== null && now >= drop.closes_at)) return "closed";
  if (now < drop.opens_at) return "opens";
  if (drop.raffle && drop.raffle.drawn_at === null) return "raffle";
  return drop.state === "sold_out" ? "sold_out" : "open";
}

/**
 * All drops of a room, running ones first, newest first among equals.
 * @param {import("./store.js").Room} room
 * @param {number} now
 * @returns {any[]}
 */
export function drops(room, now) {
  const order = { open: 0, raffle: 0, opens: 1, sold_out: 2, closed: 3, none: 4 };
  return Object.keys(room.facts)
    .filter((key) => key.startsWith("drop:"))
    .map((key) => room.facts[key])
    .sort((a, b) => order[phase(a, now)] - order[phase(b, now)] || b.opens_at - a.opens_at);
}

/**
 * The pinned product first, then every other product of a running sale.
 * @param {import("./store.js").Room} room
 * @param {number} now
 * @returns {Offer[]}
 */
export function offers(room, now) {
  const all = drops(room, now);
  /** @type {Map<string, any>} the best drop of each SKU */
  const sellers = new Map();
  for (const drop of all) {
    for (const line of drop.lines) if (!sellers.has(line.sku)) sellers.set(line.sku, drop);
  }
  const left = (/** @type {string} */ sku) => room.states[`stock:${sku}`]?.[1] ?? null;
  /** @type {Offer[]} */
  const found = [];
  const pin = room.facts.pin;
  if (pin) {
    const items = pin.skus.map((/** @type {any} */ sku) => ({
      sku: sku.sku,
      title: sku.title,
      price: priceOf(sellers.get(sku.sku), sku.sku) ?? sku.price,
      compareAt: sku.compare_at ?? null,
      left: left(sku.sku),
      drop: sellers.get(sku.sku) ?? null,
    }));
    found.push({
      product: pin.product,
      title: pin.title,
      description: pin.description ?? "",
      image: pin.image ?? null,
      pinned: true,
      items,
      drop: all.find((drop) => items.some((/** @type {Item} */ item) => item.drop === drop)) ?? null,
    });
  }
  for (const drop of all) {
    if (phase(drop, now) === "closed") continue;
    for (const line of drop.lines) {
      if (sellers.get(line.sku) !== drop) continue;
      const item = {
        sku: line.sku,
        title: line.title,
        price: line.price,
        compareAt: null,
        left: left(line.sku),
        drop,
      };
      const same = found.find((offer) => offer.product === line.product);
      if (same) {
        if (!same.items.some((one) => one.sku === line.sku)) same.items.push(item);
        continue;
      }
      found.push({
        product: line.product,
        title: line.title,
        description: "",
        image: line.image ?? null,
        pinned: false,
        items: [item],
        drop,
      });
    }
  }
  return found;
}

/**
 * @param {any} drop
 * @param {string} sku
 */
function priceOf(drop, sku) {
  return drop?.lines.find((/** @type {any} */ line) => line.sku === sku)?.price;
}

/**
 * May this item be bought at `now`?
 * @param {Item} item
 * @param {number} now
 * @returns {Phase}
 */
export function itemPhase(item, now) {
  const at = phase(item.drop, now);
  return at === "open" && item.left !== null && item.left <= 0 ? "sold_out" : at;
}

/**
 * What an offer's one button says: open if anything of it can be bought.
 * @param {Offer} offer
 * @param {number} now
 * @returns {Phase}
 */
export function offerPhase(offer, now) {
  const phases = offer.items.map((item) => itemPhase(item, now));
  for (const wanted of /** @type {Phase[]} */ (["open", "raffle", "opens", "sold_out", "closed"])) {
    if (phases.includes(wanted)) return wanted;
  }
  return "none";
}

/**
 * Units of the whole offer that can be bought now; null when not known or not on sale.
 * @param {Offer} offer
 */
export function offerLeft(offer) {
  const known = offer.items.filter((item) => item.drop && item.left !== null);
  return known.length === 0 ? null : known.reduce((sum, item) => sum + (item.left ?? 0), 0);
}

/**
 * Most units of an item that one press may ask for.
 * @param {Item} item
 */
export function quantityMax(item) {
  const limits = [99, item.left ?? 99, item.drop?.per_viewer ?? 99];
  return Math.max(1, Math.min(...limits));
}
