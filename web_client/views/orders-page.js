/** All orders of the shop: filter, search, page by page; the one that is open beside or above. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import * as desk from "../api-desk.js";
import { formatDate, formatMoney } from "../money.js";
import { save } from "../save.js";
import { Icon } from "./icon.js";
import { shortId } from "./hold-sheet.js";
import { OrderFile } from "./order-file.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

const STATES = ["placed", "paid", "partly_shipped", "shipped", "delivered", "closed", "cancelling", "cancelled"];
/** Wait after a key before searching, milliseconds. */
const SEARCH_MS = 300;

/**
 * @param {{who: any, show: string, open: string | null, onOpen: (id: string | null) => void, onShow: (show: string) => void,
 *   onFailed: (refusal: any) => void}} props
 */
export function OrdersPage({ who, show, open, onOpen, onShow, onFailed }) {
  const { t, language } = useSpeech();
  const [state, setState] = useState("");
  const [text, setText] = useState("");
  const [page, setPage] = useState(/** @type {{orders: any[], next: string | null} | null} */ (null));
  const [shows, setShows] = useState(/** @type {any[]} */ ([]));
  const work = useWork();
  const files = useWork();
  const asked = useRef(0);
  const filter = { show, state, text: text.trim() };
  const look = (/** @type {string | null} */ after) => {
    asked.current += 1;
    const mine = asked.current;
    return work.run(async () => {
      const found = await desk.orderPage(who.token, filter, after);
      if (mine !== asked.current) return;
      setPage((now) => (after && now ? { ...found, orders: [...now.orders, ...found.orders] } : found));
    });
  };
  useEffect(() => void api.shows(who.token).then(setShows, onFailed), []);
  useEffect(() => {
    const timer = setTimeout(() => void look(null), text ? SEARCH_MS : 0);
    return () => clearTimeout(timer);
  }, [show, state, text]);
  const changed = (/** @type {any} */ order) =>
    setPage((now) => now && { ...now, orders: now.orders.map((one) => (one.id === order.id ? order : one)) });
  const opener = useRef(/** @type {string | null} */ (null));
  useEffect(() => {
    if (open) opener.current = open;
    else if (opener.current) document.getElementById(`row-${opener.current}`)?.focus();
  }, [open]);
  return html`
    <div class=${`desk ${open ? "desk-open" : ""}`} data-testid="orders-page">
      <section class="panel desk-list" aria-label=${t("orders")}>
        <header class="panel-head">
          <h2>${t("orders")}</h2>
          <span class="head-buttons">
            ${show && html`<a class="chip-button chip-line" href=${`#packing=${encodeURIComponent(show)}`} data-testid="to-packing">${t("packing")}</a>`}
            <button type="button" class="chip-button chip-line" disabled=${files.busy} title=${t("orders.csv")} aria-label=${t("orders.csv")} data-testid="orders-csv" onClick=${() => files.run(async () => save(await desk.ordersFile(who.token, filter), "orders.csv"))}>
              ${t("desk.csv")}
            </button>
          </span>
        </header>
        <div class="filters">
          <label class="search">
            <${Icon} name="search" />
            <span class="hidden-text">${t("desk.search")}</span>
            <input type="search" class="text-input" value=${text} maxlength="100" placeholder=${t("desk.search")} data-testid="orders-search" onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
          </label>
          <label class="filter">
            <span class="hidden-text">${t("desk.state")}</span>
            <select class="text-input" value=${state} data-testid="orders-state" onChange=${(/** @type {any} */ event) => setState(event.target.value)}>
              <option value="">${t("desk.any_state")}</option>
              ${STATES.map((name) => html`<option key=${name} value=${name} selected=${state === name}>${t(`order.state.${name}`)}</option>`)}
            </select>
          </label>
          <label class="filter">
            <span class="hidden-text">${t("desk.show")}</span>
            <select class="text-input" value=${show} data-testid="orders-show" onChange=${(/** @type {any} */ event) => onShow(event.target.value)}>
              <option value="">${t("desk.any_show")}</option>
              ${shows.map((one) => html`<option key=${one.id} value=${one.id} selected=${show === one.id}>${one.title}</option>`)}
            </select>
          </label>
        </div>
        <${Trouble} refusal=${work.refusal ?? files.refusal} onAgain=${() => look(null)} />
        ${page?.orders.length === 0 && html`<p class="empty" role="status" data-testid="orders-none">${t(state || text || show ? "desk.none_found" : "orders.empty")}</p>`}
        <ul class="desk-rows" data-testid="order-rows">
          ${(page?.orders ?? []).map(
            (order) => html`<li key=${order.id}>
              <button
                type="button"
                class="desk-row"
                id=${`row-${order.id}`}
                aria-current=${order.id === open ? "true" : undefined}
                data-testid="order-row"
                data-order=${order.id}
                data-state=${order.state}
                onClick=${() => onOpen(order.id)}
              >
                <span class="desk-row-words">
                  <b>${order.lines.map((/** @type {any} */ line) => `${line.quantity} × ${line.title}`).join(", ")}</b>
                  <small>${shortId(order.id)} · ${formatDate(order.at, language)}</small>
                </span>
                <span class="order-end">
                  <b>${formatMoney(order.total, language)}</b>
                  <small class=${`order-state order-${order.state}`}>${t(`order.state.${order.state}`)}</small>
                </span>
              </button>
            </li>`,
          )}
        </ul>
        ${page?.next && html`<button type="button" class="quiet" disabled=${work.busy} data-testid="orders-more" onClick=${() => look(page.next)}>${t("catalogue.more")}</button>`}
      </section>
      ${open
        ? html`<section class="panel desk-file" key=${open}>
            <h2 class="hidden-text">${t("order.number", { id: shortId(open) })}</h2>
            <header class="panel-head">
              <button type="button" class="chip-button chip-line" data-testid="file-close" onClick=${() => onOpen(null)}><${Icon} name="back" /> ${t("orders")}</button>
            </header>
            <${OrderFile} token=${who.token} id=${open} onChange=${changed} />
          </section>`
        : html`<p class="desk-none empty">${t("desk.choose_order")}</p>`}
    </div>
  `;
}
