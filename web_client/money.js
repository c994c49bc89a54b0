/**
 * Money and time as people read them. Pure; everything by Intl, in the language of the page.
 *
 * Money is minor units with a currency; the number of decimals is the currency's own (0 for yen,
 * 3 for dinar), asked from Intl, which reads the same CLDR table as the server.
 */

/** @type {Map<string, Intl.NumberFormat>} */
const formats = new Map();

/**
 * @param {string} language
 * @param {string} currency
 */
function currencyFormat(language, currency) {
  const key = `${language} ${currency}`;
  let format = formats.get(key);
  if (!format) {
    try {
      format = new Intl.NumberFormat(language, { style: "currency", currency });
    } catch {
      format = new Intl.NumberFormat(language, { minimumFractionDigits: 2 });
    }
    formats.set(key, format);
  }
  return format;
}

/**
 * "€8.99" for {amount: 899, currency: "EUR"}.
 * @param {import("./protocol.js").Money | null | undefined} money
 * @param {string} language
 */
export function formatMoney(money, language) {
  if (!money) return "";
  const format = currencyFormat(language, money.currency);
  const digits = format.resolvedOptions().maximumFractionDigits ?? 2;
  return format.format(money.amount / 10 ** digits);
}

/**
 * The price of several units.
 * @param {import("./protocol.js").Money} price
 * @param {number} quantity
 */
export function times(price, quantity) {
  return { amount: price.amount * quantity, currency: price.currency };
}

/**
 * "2:05", "1:02:05"; never below "0:00". Rounds up, so that a countdown ends when it shows 0:00.
 * @param {number} ms
 */
export function formatCountdown(ms) {
  const all = Math.max(0, Math.ceil(ms / 1000));
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(all % 60)}`
    : `${minutes}:${two(all % 60)}`;
}

/**
 * "14:05".
 * @param {number} atMs
 * @param {string} language
 */
export function formatTime(atMs, language) {
  return new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" }).format(atMs);
}

/**
 * "Sat, 22 Nov, 14:05".
 * @param {number} atMs
 * @param {string} language
 */
export function formatDate(atMs, language) {
  return new Intl.DateTimeFormat(language, {
    weekday: "short",
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
  }).format(atMs);
}

/**
 * "22 Nov, 14:05:09": for lines whose order matters; short, so always in 24 hours.
 * @param {number} atMs
 * @param {string} language
 */
export function formatMoment(atMs, language) {
  return new Intl.DateTimeFormat(language, {
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  }).format(atMs);
}

/**
 * "−12.5 %" or "−€3.00": what a discount or a coupon takes off.
 * @param {{percent_bp?: number | null, amount?: number | null}} rule
 * @param {string} currency
 * @param {string} language
 */
export const formatReduction = (rule, currency, language) =>
  `−${rule.percent_bp ? `${rule.percent_bp / 100} %` : formatMoney({ amount: rule.amount ?? 0, currency }, language)}`;

/**
 * Decimals of a currency: 2 for euro, 0 for yen.
 * @param {string} currency
 * @param {string} language
 */
export function currencyDigits(currency, language) {
  return currencyFormat(language, currency).resolvedOptions().maximumFractionDigits ?? 2;
}

/**
 * A receipt as people read it to each other: epoch and number, "2·1,482".
 * @param {unknown} receipt
 * @param {string} language
 * @returns {string} empty if it is none
 */
export function formatClaim(receipt, language) {
  if (!Array.isArray(receipt) || receipt.length !== 2 || !receipt.every(Number.isSafeInteger)) return "";
  return `${receipt[0]}·${new Intl.NumberFormat(language).format(receipt[1])}`;
}

/**
 * "1.2K" for counters that only give an impression.
 * @param {number} n
 * @param {string} language
 */
export function formatCount(n, language) {
  return new Intl.NumberFormat(language, {
    notation: n >= 10_000 ? "compact" : "standard",
    maximumFractionDigits: 1,
  }).format(n);
}
