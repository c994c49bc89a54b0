/** Orders as they come, newest first; one opens over the console, so that the show goes on. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatMoney, formatTime } from "../money.js";
import { Dialog } from "./dialog.js";
import { shortId } from "./hold-sheet.js";
import { OrderFile } from "./order-file.js";
import { useSpeech } from "./speech.js";

/** Orders drawn; the rest is in the API. */
const SHOWN = 60;

/** @param {{host: import("../console.js").HostConsole, orders: any[], fresh: string[]}} props */
export function OrdersPanel({ host, orders, fresh }) {
  const [open, setOpen] = useState(/** @type {string | null} */ (null));
  const { t, language } = useSpeech();
  const paid = orders.filter((order) => order.state !== "placed" && order.state !== "cancelled");
  const currency = paid[0]?.total.currency;
  const sum = paid
    .filter((order) => order.total.currency === currency)
    .reduce((all, order) => all + order.total.amount, 0);
  return html`
    <section class="panel orders" aria-label=${t("orders")}>
      <header class="panel-head">
        <h2>${t("orders")}</h2>
        ${paid.length > 0 &&
        html`<span class="orders-sum" data-testid="orders-sum">
          ${t("orders.paid", { n: paid.length })} · ${formatMoney({ amount: sum, currency }, language)}
        </span>`}
      </header>
      ${orders.length === 0 && html`<p class="empty">${t("orders.empty")}</p>`}
      <ul class="order-list" aria-live="polite" data-testid="orders">
        ${orders.slice(0, SHOWN).map(
          (order) => html`<li key=${order.id} class=${`order ${fresh.includes(order.id) ? "order-fresh" : ""}`} data-testid="order" data-order=${order.id} data-state=${order.state}>
            <button type="button" class="order-open" data-testid="order-open" onClick=${() => setOpen(order.id)}>
              <span class="order-words">
                <b>${order.lines.map((/** @type {any} */ line) => `${line.quantity} × ${line.title}`).join(", ")}</b>
                <small>${order.buyer ? `${order.buyer} · ` : ""}${shortId(order.id)} · ${formatTime(order.at, language)}</small>
              </span>
              <span class="order-end">
                <b>${formatMoney(order.total, language)}</b>
                <small class=${`order-${order.state}`}>${t(`order.state.${order.state}`)}</small>
              </span>
            </button>
          </li>`,
        )}
      </ul>
      <a class="link-button" href=${`#orders&of=${encodeURIComponent(host.show)}`} data-testid="all-orders">${t("orders.all")}</a>
      ${open &&
      html`<${Dialog} title=${t("order.number", { id: shortId(open) })} onClose=${() => setOpen(null)} closeLabel=${t("close")} wide testid="order-dialog">
        <${OrderFile}
          token=${host.who.token}
          id=${open}
          version=${orders.find((order) => order.id === open)?.updated_at}
          onChange=${(/** @type {any} */ order) => host.putOrder(order, false)}
        />
      <//>`}
    </section>
  `;
}
