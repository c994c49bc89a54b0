/** One's own reservations and orders, newest first, and what is held about oneself. */

import { html, useEffect } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import * as desk from "../api-desk.js";
import { formatClaim, formatCountdown, formatDate, formatMoney } from "../money.js";
import { useTicks } from "../observable.js";
import { over } from "../purchases.js";
import { Dialog } from "./dialog.js";
import { shortId } from "./hold-sheet.js";
import { MyData } from "./my-data.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @param {any[]} lines */
const words = (lines) => lines.map((line) => `${line.quantity} × ${line.title}`).join(", ");

/**
 * @param {{viewer: import("../viewer.js").Viewer, holds: any[], orders: any[], now: () => number,
 *   onOpen: (rid: string) => void, onOrder: (id: string) => void, onClose: () => void}} props
 */
export function PurchasesSheet({ viewer, holds, orders, now, onOpen, onOrder, onClose }) {
  const { t, language } = useSpeech();
  const work = useWork();
  const token = viewer.token ?? "";
  const look = () =>
    work.run(async () => {
      const [mine, held] = await Promise.all([api.orders(token, null), desk.holds(token)]);
      for (const order of mine) viewer.purchases.putOrder(order);
      for (const hold of held) viewer.purchases.put(hold);
    });
  useEffect(() => void look(), []);
  const open = holds.filter((hold) => !over(hold)).sort((a, b) => a.until_ms - b.until_ms);
  const past = [...orders].sort((a, b) => b.at - a.at);
  useTicks(open.length > 0 ? 1000 : null);
  return html`
    <${Dialog} title=${t("purchases")} onClose=${onClose} closeLabel=${t("close")} testid="purchases-sheet">
      <${Trouble} refusal=${work.refusal} onAgain=${look} />
      ${!work.busy && !work.refusal && open.length === 0 && past.length === 0 && html`<p class="empty">${t("purchases.empty")}</p>`}
      ${open.length > 0 &&
      html`<h3>${t("purchases.holds")}</h3>
      <ul class="rows">
        ${open.map(
          (hold) => html`<li key=${hold.rid} data-testid="my-hold" data-state=${hold.state}>
            <button type="button" class="row" onClick=${() => onOpen(hold.rid)}>
              <span>
                ${words(hold.lines)}
                ${formatClaim(hold.receipt, language) && html`<small>${t("hold.receipt", { claim: formatClaim(hold.receipt, language) })}</small>`}
              </span>
              <span class="row-end">
                <b>${formatMoney(hold.total, language)}</b>
                <small>${t("purchases.until", { time: formatCountdown(hold.until_ms - now()) })}</small>
              </span>
            </button>
          </li>`,
        )}
      </ul>`}
      ${past.length > 0 &&
      html`<h3>${t("purchases.orders")}</h3>
      <ul class="rows">
        ${past.map(
          (order) => html`<li key=${order.id} data-testid="my-order" data-order=${order.id} data-state=${order.state}>
            <button type="button" class="row" data-testid="my-order-open" onClick=${() => onOrder(order.id)}>
              <span>
                ${words(order.lines)}
                <small>${shortId(order.id)} · ${formatDate(order.at, language)}</small>
              </span>
              <span class="row-end">
                <b>${formatMoney(order.total, language)}</b>
                <small class=${`order-state order-${order.state}`}>${t(`order.state.${order.state}`)}</small>
                ${order.refunded?.amount > 0 && html`<small data-testid="my-order-refunded">${t("order.refunded")} ${formatMoney(order.refunded, language)}</small>`}
              </span>
            </button>
          </li>`,
        )}
      </ul>`}
      <${MyData} token=${token} />
    <//>
  `;
}
