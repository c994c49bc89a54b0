/**
 * A reservation, from "it is yours until…" to "paid". Every state says what happens next and has a
 * way on: there is no dead end between Buy and a paid order.
 */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import * as desk from "../api-desk.js";
import { codeOf, refusedBecause } from "../coupons.js";
import { formatClaim, formatMoney, times } from "../money.js";
import { quoteOf } from "../order-words.js";
import { newRid } from "../protocol.js";
import { Refusal } from "../refusal.js";
import * as storage from "../storage.js";
import { AddressForm } from "./address-form.js";
import { holdWords } from "./buy-sheet.js";
import { CouponField } from "./coupon-field.js";
import { Dialog } from "./dialog.js";
import { Icon } from "./icon.js";
import { Ring } from "./ring.js";
import { useSpeech } from "./speech.js";

/** Pace of asking for a payment whose push may have been missed, milliseconds. */
const LOOK_MS = 3_000;
/** After so long the page says that it takes longer than usual, milliseconds. */
const LONG_MS = 20_000;

/**
 * @param {{hold: any, order: any, returned: "" | "done" | "back", declined: boolean, holdS: number | null,
 *   viewer: import("../viewer.js").Viewer, onOrder: (id: string) => void, onClose: () => void}} props `returned`: back from the provider's page
 */
export function HoldSheet({ hold, order, returned, declined, holdS, viewer, onOrder, onClose }) {
  const { t, language, say } = useSpeech();
  const [busy, setBusy] = useState(/** @type {"" | "paying" | "cancelling"} */ (""));
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const [coupon, setCoupon] = useState("");
  const now = () => viewer.now();
  const first = useRef(now());
  const total = holdS ? holdS * 1000 : Math.max(1000, hold.until_ms - first.current);
  const price = useQuote(hold, order);
  const paid = hold.state === "sold" || (order && order.state !== "placed");
  useEffect(() => {
    if (paid || !["paying", "closing"].includes(hold.state)) return undefined;
    const timer = setInterval(() => void viewer.purchases.look(hold.rid), LOOK_MS);
    return () => clearInterval(timer);
  }, [hold.rid, hold.state, paid]);

  const pay = async (/** @type {any} */ delivery) => {
    setBusy("paying");
    setRefusal(null);
    const code = codeOf(coupon);
    const body = code ? { ...delivery, coupon: code } : delivery;
    const key = storage.paymentKey(hold.rid, JSON.stringify(body), () => newRid(Date.now()));
    try {
      const page = await api.pay(viewer.token ?? "", hold.rid, body, key);
      const before = storage.promised(hold.rid)?.coupon ?? "";
      storage.keepPromised(hold.rid, { total: page.total, shipping: page.shipping, coupon: code || before });
      const address = new URL(page.url, location.href);
      if (!["http:", "https:"].includes(address.protocol)) throw new Refusal("unknown");
      location.assign(address.href);
    } catch (error) {
      setBusy("");
      setRefusal(error instanceof Refusal ? error : new Refusal("unknown"));
      void viewer.purchases.look(hold.rid);
    }
  };
  const cancel = async () => {
    setBusy("cancelling");
    setRefusal(null);
    try {
      await viewer.purchases.cancel(hold.rid);
    } catch (error) {
      setRefusal(/** @type {Refusal} */ (error));
      void viewer.purchases.look(hold.rid);
    }
    setBusy("");
  };
  const state = paid ? "sold" : hold.state;
  const wrongCode = refusedBecause(refusal);
  const claim = formatClaim(hold.receipt, language);
  const [unpaid, setUnpaid] = useState(false);
  const confirming = state === "paying" && returned === "done" && !declined && !unpaid;
  return html`
    <${Dialog} title=${t(`hold.title.${confirming ? "confirming" : state}`)} onClose=${onClose} closeLabel=${t("close")} testid="hold-sheet">
      <div class="hold" data-testid="hold" data-state=${state} data-rid=${hold.rid}>
        ${["held", "paying"].includes(state) &&
        !confirming &&
        html`<div class="hold-head">
          <${Ring} untilMs=${hold.until_ms} totalMs=${total} now=${now} label=${t("hold.time_left")} />
          <p>${t(state === "held" ? "hold.yours" : declined ? "hold.declined" : returned === "back" ? "hold.back" : "hold.payment_open")}</p>
        </div>`}
        ${confirming && html`<${Confirming} />`}
        ${state === "closing" &&
        html`<div class="hold-head">
          <span class="spinner spinner-big" aria-hidden="true"></span>
          <p>${t("hold.closing")}</p>
        </div>`}
        ${["sold", "expired", "cancelled"].includes(state) &&
        html`<div class=${`hold-end hold-end-${state}`}>
          <span class="mark"><${Icon} name=${state === "sold" ? "check" : "clock"} /></span>
          <p>${t(`hold.${state}`)}</p>
          ${order &&
          html`<button type="button" class="link-button" data-testid="hold-order" onClick=${() => onOrder(order.id)}>
            ${t("hold.see_order", { id: shortId(order.id) })}
          </button>`}
        </div>`}
        <${Lines} lines=${hold.lines} ...${price} />
        ${["held", "paying"].includes(state) && html`<${LapseRule} lapses=${hold.lapses ?? 0} />`}
        ${claim && html`<p class="hint" data-testid="receipt">${t("hold.receipt", { claim })}</p>`}
        <p class="hidden-text" aria-live="assertive">${announced(t, state, holdS)}</p>
        ${refusal && !wrongCode && html`<p class="trouble" role="alert" data-testid="hold-trouble">${say(refusal)}</p>`}
        ${confirming &&
        html`<button type="button" class="quiet" data-testid="not-paid" onClick=${() => setUnpaid(true)}>
          ${t("hold.not_paid")}
        </button>`}
        ${["held", "paying"].includes(state) &&
        !confirming &&
        html`
          <${AddressForm}
            onSubmit=${pay}
            busy=${busy !== ""}
            wrongField=${refusal?.code === "bad_params" ? String(refusal.details.field ?? "") : ""}
            label=${busy === "paying"
              ? t("hold.opening_payment")
              : t(state === "held" ? "hold.pay" : "hold.pay_again", {
                  price: formatMoney(price.total, language),
                })}
          >
            ${(state === "held" || coupon) && html`<${CouponField} value=${coupon} reason=${wrongCode} onInput=${setCoupon} />`}
          <//>
          <button type="button" class="quiet" disabled=${busy !== ""} data-testid="hold-cancel" onClick=${cancel}>
            ${t(busy === "cancelling" ? "hold.cancelling" : "hold.cancel")}
          </button>
        `}
        ${["sold", "expired", "cancelled", "closing"].includes(state) &&
        html`<button type="button" class="primary" data-testid="hold-done" onClick=${onClose}>
          ${t("hold.back_to_show")}
        </button>`}
      </div>
    <//>
  `;
}

/**
 * @param {import("../i18n.js").Translate} t
 * @param {string} state
 * @param {number | null} holdS
 */
function announced(t, state, holdS) {
  if (state === "held") return holdS ? t("hold.announce", { time: holdWords(t, holdS) }) : t("hold.yours");
  return ["sold", "expired", "cancelled"].includes(state) ? t(`hold.${state}`) : "";
}

function Confirming() {
  const { t } = useSpeech();
  const [long, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), LONG_MS);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="hold-head" data-testid="confirming">
    <span class="spinner spinner-big" aria-hidden="true"></span>
    <p>${t(long ? "hold.confirming_long" : "hold.confirming")}</p>
  </div>`;
}

/**
 * What becomes of holds that run out unpaid, said while there is still time to give this one back.
 * @param {{lapses: number}} props
 */
function LapseRule({ lapses }) {
  const { t } = useSpeech();
  const [rule, setRule] = useState(/** @type {any} */ (null));
  useEffect(() => {
    api.holdRule().then(setRule, () => {});
  }, []);
  const first = rule?.steps[0];
  return html`
    ${lapses > 0 && html`<p class="hint" data-testid="hold-shorter">${t("hold.shorter", { n: lapses })}</p>`}
    ${first &&
    html`<p class="hint" data-testid="hold-rule">
      ${t("hold.rule", { n: first.lapses, hours: Math.round(rule.window_ms / 3_600_000) })}
    </p>`}
  `;
}

/**
 * What a hold comes to, so that the provider's page surprises nobody.
 * @param {any} hold
 * @param {any} order
 * @returns {Price}
 */
function useQuote(hold, order) {
  const { t } = useSpeech();
  const [terms, setTerms] = useState(/** @type {{discount: any, shipping: any} | null} */ (null));
  useEffect(() => {
    Promise.all([desk.discount(hold.drop), api.shop(null)]).then(
      ([discount, shop]) => setTerms({ discount, shipping: shop.shipping_amount }),
      () => {},
    );
  }, [hold.drop]);
  const { currency, amount } = hold.total;
  const page = storage.promised(hold.rid);
  const stands = order ?? page;
  const fixed = stands && {
    total: stands.total.amount,
    discount: amount + stands.shipping.amount - stands.total.amount,
    shipping: stands.shipping.amount,
  };
  const { total, sale, coupon, shipping } = quoteOf(amount, terms, fixed);
  const money = (/** @type {number} */ minor) => ({ amount: minor, currency });
  const line = (/** @type {string} */ title, /** @type {number} */ off) => (off > 0 ? { title, money: money(-off) } : null);
  return {
    total: money(total),
    discount: line(terms?.discount?.title ?? t("step.discount"), sale),
    coupon: line(page?.coupon ? t("coupon.line", { code: page.coupon }) : t("step.discount"), coupon),
    shipping: shipping === null ? undefined : money(shipping),
  };
}

/**
 * `shipping` undefined: not known yet.
 * @typedef {{total: any, discount: Off | null, coupon: Off | null, shipping: any}} Price
 * @typedef {{title: string, money: any}} Off
 */

/** @param {Price & {lines: any[]}} props */
export function Lines({ lines, total, discount, coupon, shipping }) {
  const { t, language } = useSpeech();
  const small = (/** @type {string} */ title, /** @type {any} */ money, /** @type {string | undefined} */ testid = undefined) =>
    html`<li class="line-small" data-testid=${testid}>
      <span>${title}</span>
      <span>${formatMoney(money, language)}</span>
    </li>`;
  return html`
    <ul class="lines" data-testid="lines">
      ${lines.map(
        (line) => html`<li key=${line.sku}>
          <span><b>${line.quantity} ×</b> ${line.title}</span>
          <span>${formatMoney(times(line.price, line.quantity), language)}</span>
        </li>`,
      )}
      ${discount && small(discount.title, discount.money, "line-discount")}
      ${coupon && small(coupon.title, coupon.money, "line-coupon")}
      ${shipping?.amount > 0 && small(t("order.shipping"), shipping)}
      <li class="line-total">
        <span>${t("order.total")}${!shipping && html` <small>${t("order.plus_shipping")}</small>`}</span>
        <span data-testid="lines-total">${formatMoney(total, language)}</span>
      </li>
    </ul>
  `;
}

/**
 * The end of an id is what people can read to each other.
 * @param {string} id
 */
export const shortId = (id) => id.slice(-8).toUpperCase();
