/** One product in full: picture, words, variants, quantity, and Buy. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatMoney, times } from "../money.js";
import { useTicks } from "../observable.js";
import { itemPhase, quantityMax } from "../offers.js";
import { Dialog } from "./dialog.js";
import { Icon } from "./icon.js";
import { Picture } from "./picture.js";
import { BuyButton, Left, Price } from "./product-card.js";
import { useSpeech } from "./speech.js";

/**
 * @param {{offer: import("../offers.js").Offer, now: () => number, press: any,
 *   onBuy: (item: import("../offers.js").Item, quantity: number) => void, onClose: () => void, trouble: any,
 *   waitBox: (item: any, quantity?: number) => any, limited: boolean}} props `limited`: by the rule for holds that run out
 */
export function BuySheet({ offer, now, press, onBuy, onClose, trouble, waitBox, limited }) {
  const { t, language } = useSpeech();
  const firstOpen = offer.items.find((item) => itemPhase(item, now()) === "open");
  const [picked, pick] = useState((firstOpen ?? offer.items[0])?.sku);
  const [quantity, setQuantity] = useState(1);
  useTicks(500);
  const item = offer.items.find((one) => one.sku === picked) ?? offer.items[0];
  if (!item) return null;
  const most = quantityMax(item);
  const count = Math.min(quantity, most);
  const phase = itemPhase(item, now());
  const total = times(item.price, count);
  return html`
    <${Dialog} title=${offer.title} onClose=${onClose} closeLabel=${t("close")} testid="buy-sheet">
      <div class="sheet-product">
        <${Picture} src=${offer.image} class="sheet-picture" />
        <div>
          <${Price} offer=${{ ...offer, items: [item] }} />
          <p><${Left} left=${item.left} phase=${phase} testid="item-left" /></p>
          ${offer.description && html`<p class="description">${offer.description}</p>`}
        </div>
      </div>
      ${offer.items.length > 1 &&
      html`<fieldset class="variants">
        <legend>${t("product.choose")}</legend>
        <div class="variant-list">
          ${offer.items.map((one) => {
            const at = itemPhase(one, now());
            return html`<label
              key=${one.sku}
              class=${`variant ${one.sku === item.sku ? "variant-on" : ""} ${at === "sold_out" ? "variant-none" : ""}`}
            >
              <input
                type="radio"
                name="variant"
                value=${one.sku}
                checked=${one.sku === item.sku}
                data-testid=${`variant-${one.sku}`}
                onChange=${() => pick(one.sku)}
              />
              <span>${one.title}</span>
              <small>
                ${at === "sold_out" ? t("stock.none") : formatMoney(one.price, language)}
              </small>
            </label>`;
          })}
        </div>
      </fieldset>`}
      <div class="quantity">
        <span id="quantity-label">${t("quantity")}</span>
        <div class="stepper" role="group" aria-labelledby="quantity-label">
          <button
            type="button"
            aria-label=${t("quantity.less")}
            disabled=${count <= 1}
            data-testid="quantity-less"
            onClick=${() => setQuantity(count - 1)}
          >
            <${Icon} name="minus" />
          </button>
          <output aria-live="polite" data-testid="quantity">${count}</output>
          <button
            type="button"
            aria-label=${t("quantity.more")}
            disabled=${count >= most}
            data-testid="quantity-more"
            onClick=${() => setQuantity(count + 1)}
          >
            <${Icon} name="plus" />
          </button>
        </div>
      </div>
      ${item.drop?.per_viewer && html`<p class="hint">${t("buy.limit", { n: item.drop.per_viewer })}</p>`}
      ${trouble}
      ${["sold_out", "raffle"].includes(phase) && waitBox(item)}
      <${BuyButton}
        phase=${phase}
        opensAt=${item.drop?.opens_at ?? 0}
        now=${now}
        buying=${press?.state === "buying"}
        onBuy=${() => onBuy(item, count)}
        label=${t("buy.buy_for", { price: formatMoney(total, language) })}
        testid="sheet-buy"
      />
      ${item.drop && html`<p class="hint">${t(limited ? "buy.hold_limited" : "buy.hold_explained", { time: holdWords(t, item.drop.hold_s) })}</p>`}
    <//>
  `;
}

/**
 * @param {import("../i18n.js").Translate} t
 * @param {number} seconds
 */
export function holdWords(t, seconds) {
  return seconds % 60 === 0 ? t("minutes", { n: seconds / 60 }) : t("seconds", { n: seconds });
}
