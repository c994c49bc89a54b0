/** What is shown in the show right now, and the button that everything is about. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown, formatMoney } from "../money.js";
import { useTicks } from "../observable.js";
import { offerLeft, offerPhase } from "../offers.js";
import { Picture } from "./picture.js";
import { useSpeech } from "./speech.js";

/** From here on the stock is said to be low, units. */
const LOW = 5;

/**
 * "From €9" or the one price, and the former price if all share one.
 * @param {{offer: import("../offers.js").Offer}} props
 */
export function Price({ offer }) {
  const { t, language } = useSpeech();
  const amounts = offer.items.map((item) => item.price.amount);
  const cheapest = offer.items[amounts.indexOf(Math.min(...amounts))];
  if (!cheapest) return null;
  const text = formatMoney(cheapest.price, language);
  const before = cheapest.compareAt;
  return html`<span class="price" data-testid="price">
    ${Math.max(...amounts) > cheapest.price.amount ? t("price.from", { price: text }) : text}
    ${before &&
    before.amount > cheapest.price.amount &&
    html` <s aria-label=${t("price.before")}>${formatMoney(before, language)}</s>`}
  </span>`;
}

/** @param {{left: number | null, phase: string, testid?: string}} props */
export function Left({ left, phase, testid = "stock-left" }) {
  const { t } = useSpeech();
  if (phase === "sold_out" || left === 0) {
    return html`<span class="left left-none" data-testid=${testid} data-left="0">${t("stock.none")}</span>`;
  }
  if (left === null) return null;
  return html`<span class=${`left ${left <= LOW ? "left-low" : ""}`} data-testid=${testid} data-left=${left}>
    ${t("stock.left", { n: left })}
  </span>`;
}

/**
 * What the button says, by the server's clock.
 * @param {{phase: string, opensAt: number, now: () => number, buying: boolean, onBuy: () => void, testid?: string,
 *   disabled?: boolean, label?: string}} props
 */
export function BuyButton({ phase, opensAt, now, buying, onBuy, testid = "buy", disabled = false, label }) {
  const { t } = useSpeech();
  const text = buying
    ? t("buy.buying")
    : phase === "open"
      ? (label ?? t("buy.buy"))
      : phase === "opens"
        ? t("buy.opens_in", { time: formatCountdown(opensAt - now()) })
        : t(`buy.${phase}`);
  return html`<button
    type="button"
    class=${`buy buy-${phase}`}
    disabled=${phase !== "open" || buying || disabled}
    data-testid=${testid}
    data-phase=${buying ? "buying" : phase}
    onClick=${onBuy}
  >
    ${buying && html`<span class="spinner" aria-hidden="true"></span>`} ${text}
  </button>`;
}

/**
 * @param {{offer: import("../offers.js").Offer, others: import("../offers.js").Offer[], now: () => number,
 *   buying: boolean, onBuy: () => void, onOpen: () => void, onPick: (product: string) => void}} props
 */
export function ProductCard({ offer, others, now, buying, onBuy, onOpen, onPick }) {
  const { t } = useSpeech();
  const phase = offerPhase(offer, now());
  const ends = offer.drop?.closes_at ?? null;
  useTicks(phase === "opens" || (phase === "open" && ends) ? 250 : null);
  return html`
    <section class="product" aria-label=${t("product")} data-testid="product" data-product=${offer.product}>
      ${others.length > 0 &&
      html`<ul class="others" aria-label=${t("product.others")}>
        ${others.map(
          (other) => html`<li key=${other.product}>
            <button
              type="button"
              class="other"
              aria-label=${other.title}
              data-testid="other-product"
              onClick=${() => onPick(other.product)}
            >
              <${Picture} src=${other.image} />
              <span>${other.title}</span>
            </button>
          </li>`,
        )}
      </ul>`}
      <div class="product-card">
        <button
          type="button"
          class="product-open"
          data-testid="product-open"
          onClick=${onOpen}
        >
          <${Picture} src=${offer.image} class="product-picture" />
          <span class="product-words">
            <span class="product-title" data-testid="product-title">${offer.title}</span>
            <${Price} offer=${offer} />
            <span class="product-facts">
              <${Left} left=${offerLeft(offer)} phase=${phase} />
              ${phase === "open" &&
              ends &&
              html`<span class="closes">${t("buy.closes_in", { time: formatCountdown(ends - now()) })}</span>`}
            </span>
          </span>
          <span class="hidden-text">${t("product.details")}</span>
        </button>
        <${BuyButton} phase=${phase} opensAt=${offer.drop?.opens_at ?? 0} now=${now} buying=${buying} onBuy=${onBuy} />
      </div>
    </section>
  `;
}
