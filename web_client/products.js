/** A product as the console shows it, from what the catalogue's HTTP answers. Pure. */

/**
 * @typedef {object} Product
 * @property {string} id
 * @property {string} title
 * @property {string} vendor
 * @property {string | null} image
 * @property {{sku: string, title: string, price: import("./protocol.js").Money}[]} skus
 */

/**
 * @param {any} raw
 * @returns {Product}
 */
export function productOf(raw) {
  return {
    id: raw.id,
    title: raw.title,
    vendor: raw.vendor ?? "",
    image: raw.image ?? raw.images?.[0]?.url ?? null,
    skus: (raw.skus ?? [])
      .filter((/** @type {any} */ sku) => sku.active !== false)
      .map((/** @type {any} */ sku) => ({
        sku: sku.sku,
        title: sku.title,
        price: sku.price ?? { amount: sku.amount, currency: sku.currency },
      })),
  };
}

/**
 * @typedef {object} ImportRow
 * @property {number} line
 * @property {string} what the product, or the column that is wrong
 * @property {string} outcome created, changed, unchanged or refused
 * @property {string} text why it was refused, or what the import noted
 */

/**
 * What an import did, product by product.
 * @param {any} report
 * @returns {{counts: [string, number][], rows: ImportRow[]}}
 */
export function importReport(report) {
  const products = report?.products ?? [];
  const counts = ["created", "changed", "unchanged"].map((outcome) => [
    outcome,
    report?.counts?.[`products_${outcome}`] ??
      products.filter((/** @type {any} */ one) => one.outcome === outcome).length,
  ]);
  return {
    counts: /** @type {[string, number][]} */ (counts),
    rows: products.map((/** @type {any} */ one) => ({
      line: one.line,
      what: one.title || one.handle,
      outcome: one.outcome,
      text: "",
    })),
  };
}

/**
 * The wrong rows of a file that was refused; nothing of it was imported.
 * @param {Record<string, any>} details of the refusal
 * @returns {{counts: [string, number][], rows: ImportRow[]} | null}
 */
export function refusedReport(details) {
  if (!Array.isArray(details.problems)) return null;
  const total = Number(details.total ?? details.problems.length);
  return {
    counts: [["refused", total]],
    rows: details.problems.map((one) => ({
      line: one.line,
      what: one.column ?? "",
      outcome: "refused",
      text: one.sentence ?? one.code ?? "",
    })),
  };
}
