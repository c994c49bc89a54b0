/** Parts of an order that host and viewer see alike: how the total came to be, and where it goes. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { addressLines } from "../countries.js";
import { formatMoney } from "../money.js";
import { STEPS, progress } from "../order-words.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/**
 * From the goods to the total, step by step, and what went back.
 * @param {{file: any}} props
 */
export function Sums({ file }) {
  const { t, language } = useSpeech();
  const { order, steps } = file;
  const money = (/** @type {number} */ amount) => formatMoney({ amount, currency: order.total.currency }, language);
  const percent = (/** @type {any} */ bp) => new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(bp / 100);
  const title = (/** @type {any} */ step) => {
    const rate = step.basis?.percent_bp ?? step.basis?.rate_bp;
    return `${step.title || t(`step.${step.kind}`)}${rate ? ` (${percent(rate)} %)` : ""}`;
  };
  const promised = file.refunds
    .filter((/** @type {any} */ one) => ["requested", "submitted"].includes(one.state))
    .reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.amount, 0);
  return html`<dl class="sums" data-testid="sums">
    <div><dt>${t("order.goods")}</dt><dd>${money(order.subtotal.amount)}</dd></div>
    ${steps
      .filter((/** @type {any} */ step) => !step.included)
      .map((/** @type {any} */ step, /** @type {number} */ at) => html`<div key=${at} data-testid="sum-step"><dt>${title(step)}</dt><dd>${money(step.amount)}</dd></div>`)}
    <div class="sums-total"><dt>${t("order.total")}</dt><dd data-testid="sum-total">${money(order.total.amount)}</dd></div>
    ${steps
      .filter((/** @type {any} */ step) => step.included)
      .map((/** @type {any} */ step) => html`<div key=${step.kind} class="sums-small"><dt>${t("order.included", { title: title(step) })}</dt><dd>${money(step.amount)}</dd></div>`)}
    ${promised > 0 && html`<div data-testid="sum-promised"><dt>${t("order.refund_on_its_way")}</dt><dd>${money(-promised)}</dd></div>`}
    ${order.refunded.amount > 0 && html`<div data-testid="sum-refunded"><dt>${t("order.refunded")}</dt><dd>${money(-order.refunded.amount)}</dd></div>`}
  </dl>`;
}

/** @param {{customer: any}} props */
export function Customer({ customer }) {
  const { t, language } = useSpeech();
  if (!customer) return html`<p class="hint" data-testid="customer-none">${t("desk.no_customer")}</p>`;
  return html`<section aria-label=${t("desk.customer")}>
    <h3>${t("desk.customer")}</h3>
    <address class="customer" data-testid="customer">
      <b>${customer.name}</b>
      ${addressLines(customer.address, language).map((line) => html`<span key=${line}>${line}</span>`)}
      ${customer.phone && html`<span>${customer.phone}</span>`}
      ${customer.email && html`<span>${customer.email}</span>`}
    </address>
  </section>`;
}

/**
 * How far an order has come, as three marks and in words.
 * @param {{state: string}} props
 */
export function Progress({ state }) {
  const { t } = useSpeech();
  const { done, over } = progress(state);
  if (over) return null;
  return html`<ol class="progress" aria-label=${t("order.progress", { state: t(`order.state.${state}`) })} data-testid="progress" data-done=${done}>
    ${STEPS.map(
      (name, at) => html`<li key=${name} class=${at < done ? "progress-done" : ""} aria-current=${at === done - 1 ? "step" : undefined}>
        <span class="progress-mark">${at < done ? html`<${Icon} name="check" />` : at + 1}</span>
        <span>${t(`order.state.${name}`)}</span>
      </li>`,
    )}
  </ol>`;
}
