/** One's own reservations and orders, newest first. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown, formatMoney, formatTime } from "../money.js";
import { useTicks } from "../observable.js";
import { over } from "../purchases.js";
import { Dialog } from "./dialog.js";
import { shortId } from "./hold-sheet.js";
import { useSpeech } from "./speech.js";

/** @param {any[]} lines */
const words = (lines) => lines.map((line) => `${line.quantity} × ${line.title}`).join(", ");

/**
 * @param {{holds: any[], orders: any[], now: () => number, onOpen: (rid: string) => void, onClose: () => void}} props
 */
export function PurchasesSheet({ holds, orders, now, onOpen, onClose }) {
  const { t, language } = useSpeech();
  const open = holds.filter((hold) => !over(hold)).sort((a, b) => a.until_ms - b.until_ms);
  const past = [...orders].sort((a, b) => b.at - a.at);
  useTicks(open.length > 0 ? 1000 : null);
  return html`
    <${Dialog} title=${t("purchases")} onClose=${onClose} closeLabel=${t("close")} testid="purchases-sheet">
      ${open.length === 0 && past.length === 0 && html`<p class="empty">${t("purchases.empty")}</p>`}
      ${open.length > 0 && html`<h3>${t("purchases.holds")}</h3>`}
      <ul class="rows">
        ${open.map(
          (hold) => html`<li key=${hold.rid} data-testid="my-hold" data-state=${hold.state}>
            <button type="button" class="row" onClick=${() => onOpen(hold.rid)}>
              <span>${words(hold.lines)}</span>
              <span class="row-end">
                <b>${formatMoney(hold.total, language)}</b>
                <small>${t("purchases.until", { time: formatCountdown(hold.until_ms - now()) })}</small>
              </span>
            </button>
          </li>`,
        )}
      </ul>
      ${past.length > 0 && html`<h3>${t("purchases.orders")}</h3>`}
      <ul class="rows">
        ${past.map(
          (order) => html`<li key=${order.id} class="row" data-testid="my-order" data-state=${order.state}>
            <span>
              ${words(order.lines)}
              <small>${shortId(order.id)} · ${formatTime(order.at, language)}</small>
            </span>
            <span class="row-end">
              <b>${formatMoney(order.total, language)}</b>
              <small class=${`order-state order-${order.state}`}>${t(`order.state.${order.state}`)}</small>
            </span>
          </li>`,
        )}
      </ul>
    <//>
  `;
}
