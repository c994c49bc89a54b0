/** The catalogue in the console: search, pin, sell, and the stock of each SKU. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { formatMoney } from "../money.js";
import { productOf } from "../products.js";
import { Icon } from "./icon.js";
import { Picture } from "./picture.js";
import { useSpeech } from "./speech.js";

/** Wait after a key before searching, milliseconds. */
const SEARCH_MS = 250;

/**
 * @param {{host: import("../console.js").HostConsole, pinned: string | null, states: any, disabled: boolean,
 *   canSell: boolean, onSell: (product: any) => void, version: number}} props `version`: changes after an import
 */
export function Catalogue({ host, pinned, states, disabled, canSell, onSell, version }) {
  const { t, say, language } = useSpeech();
  const [query, setQuery] = useState("");
  const [page, setPage] = useState(/** @type {{products: any[], after: string | null}} */ ({ products: [], after: null }));
  const [refusal, setRefusal] = useState(/** @type {any} */ (null));
  const [open, setOpen] = useState(/** @type {string | null} */ (null));
  const asked = useRef(0);
  const look = async (/** @type {string | null} */ after) => {
    asked.current += 1;
    const mine = asked.current;
    try {
      const found = await api.products(host.who.token, query.trim(), after);
      if (mine !== asked.current) return;
      const products = found.products.map(productOf);
      setPage((now) => ({ ...found, products: after ? [...now.products, ...products] : products }));
      setRefusal(null);
    } catch (error) {
      if (mine === asked.current) setRefusal(error);
    }
  };
  useEffect(() => {
    const timer = setTimeout(() => void look(null), query ? SEARCH_MS : 0);
    return () => clearTimeout(timer);
  }, [query, version]);
  const price = (/** @type {any} */ product) => {
    const sorted = [...product.skus].sort((a, b) => a.price.amount - b.price.amount);
    if (sorted.length === 0) return "";
    const text = formatMoney(sorted[0].price, language);
    const last = sorted[sorted.length - 1].price.amount;
    return last > sorted[0].price.amount ? t("price.from", { price: text }) : text;
  };
  return html`
    <section class="panel catalogue" aria-label=${t("catalogue")}>
      <header class="panel-head">
        <h2>${t("catalogue")}</h2>
        <label class="search">
          <${Icon} name="search" />
          <span class="hidden-text">${t("catalogue.search")}</span>
          <input
            type="search"
            class="text-input"
            value=${query}
            placeholder=${t("catalogue.search")}
            data-testid="catalogue-search"
            onInput=${(/** @type {any} */ event) => setQuery(event.target.value)}
          />
        </label>
      </header>
      ${refusal &&
      html`<p class="trouble" role="alert"><span>${say(refusal)}</span>
        <button type="button" class="link-button" onClick=${() => look(null)}>${t("try_again")}</button>
      </p>`}
      ${!refusal && page.products.length === 0 && html`<p class="empty">${t(query ? "catalogue.none" : "catalogue.empty")}</p>`}
      <ul class="products" data-testid="catalogue">
        ${page.products.map(
          (product) => html`<li key=${product.id} class=${`item ${product.id === pinned ? "item-pinned" : ""}`} data-testid="catalogue-item" data-product=${product.id}>
            <div class="item-row">
              <span class="item-head">
                <${Picture} src=${product.image} class="item-picture" />
                <span class="item-words">
                  <b>${product.title}</b>
                  <small>${price(product)} · ${t("catalogue.skus", { n: product.skus.length })}</small>
                </span>
              </span>
              <span class="item-buttons">
              <button
                type="button"
                class="icon-button"
                aria-expanded=${open === product.id ? "true" : "false"}
                aria-label=${t("catalogue.stock_of", { title: product.title })}
                data-testid="stock-open"
                onClick=${() => setOpen(open === product.id ? null : product.id)}
              >
                <${Icon} name="down" />
              </button>
              <button
                type="button"
                class=${`pill ${product.id === pinned ? "pill-on" : ""}`}
                disabled=${disabled}
                aria-pressed=${product.id === pinned ? "true" : "false"}
                data-testid=${product.id === pinned ? "unpin" : "pin"}
                onClick=${() =>
                  (product.id === pinned
                    ? host.act("unpin_product")
                    : host.act("pin_product", { product: product.id })
                  ).catch(() => {})}
              >
                <${Icon} name="pin" /> ${t(product.id === pinned ? "catalogue.unpin" : "catalogue.pin")}
              </button>
              <button
                type="button"
                class="pill pill-strong"
                disabled=${disabled || !canSell || product.skus.length === 0}
                title=${canSell ? "" : t("sell.live_first")}
                data-testid="sell"
                onClick=${() => onSell(product)}
              >
                ${t("catalogue.sell")}
              </button>
              </span>
            </div>
            ${open === product.id &&
            html`<ul class="stock-rows">
              ${product.skus.map(
                (/** @type {any} */ sku) => html`<${StockRow} key=${sku.sku} host=${host} sku=${sku} left=${states[`stock:${sku.sku}`]?.[1]} disabled=${disabled} />`,
              )}
            </ul>`}
          </li>`,
        )}
      </ul>
      ${page.after &&
      html`<button type="button" class="quiet" data-testid="catalogue-more" onClick=${() => look(page.after)}>
        ${t("catalogue.more")}
      </button>`}
    </section>
  `;
}

/**
 * @param {{host: import("../console.js").HostConsole, sku: any, left: number | undefined, disabled: boolean}} props
 */
export function StockRow({ host, sku, left, disabled }) {
  const { t, say } = useSpeech();
  const [row, setRow] = useState(/** @type {any} */ (null));
  const [amount, setAmount] = useState("1");
  const [refusal, setRefusal] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let here = true;
    api.stock(host.who.token, sku.sku).then(
      (found) => here && setRow(found),
      (error) => here && setRefusal(error),
    );
    return () => {
      here = false;
    };
  }, [sku.sku, left]);
  // Said here, beside the number that it is about, and not above the whole console as well.
  const refused = (/** @type {any} */ error) => {
    host.observable.change({ refusal: null });
    setRefusal(error);
  };
  const adjust = async (/** @type {number} */ sign) => {
    const units = Math.round(Number(amount));
    if (!(units > 0)) return;
    setRefusal(null);
    try {
      setRow({ ...row, ...(await host.act("adjust_stock", { sku: sku.sku, delta: sign * units })) });
    } catch (error) {
      refused(error);
    }
  };
  const [lower, setLower] = useState(/** @type {number | null} */ (null));
  const set = async (/** @type {boolean} */ drain, /** @type {number} */ units) => {
    if (!(units >= 0) || !row) return;
    setRefusal(null);
    setLower(null);
    try {
      const params = { sku: sku.sku, on_hand: units, expected: row.on_hand, ...(drain ? { drain } : {}) };
      setRow({ ...row, ...(await host.act("set_stock", params)) });
    } catch (error) {
      const why = /** @type {any} */ (error);
      refused(why);
      if (why.code === "stock_held") setLower(units);
      if (why.code === "stock_changed") setRow({ ...row, ...why.details });
    }
  };
  const keep = async () => {
    try {
      setRow({ ...row, ...(await host.act("cancel_drain", { sku: sku.sku })) });
    } catch (error) {
      refused(error);
    }
  };
  return html`
    <li class="stock-row" data-testid="stock-row" data-sku=${sku.sku}>
      <span class="stock-name"><b>${sku.title}</b> <small>${sku.sku}</small></span>
      ${row &&
      html`<span class="stock-numbers">
        <span data-testid="stock-available">${t("stock.available", { n: row.available ?? left ?? 0 })}</span>
        <small>${t("stock.numbers", { on_hand: row.on_hand, held: row.held ?? 0, committed: row.committed ?? 0 })}</small>
      </span>`}
      <span class="stepper">
        <button type="button" aria-label=${t("stock.take")} disabled=${disabled} data-testid="stock-take" onClick=${() => adjust(-1)}>
          <${Icon} name="minus" />
        </button>
        <input
          type="number"
          min="1"
          max="1000000"
          value=${amount}
          aria-label=${t("stock.units")}
          data-testid="stock-units"
          onInput=${(/** @type {any} */ event) => setAmount(event.target.value)}
        />
        <button type="button" aria-label=${t("stock.add")} disabled=${disabled} data-testid="stock-add" onClick=${() => adjust(1)}>
          <${Icon} name="plus" />
        </button>
      </span>
      <button type="button" class="pill" disabled=${disabled || !row} data-testid="stock-set" onClick=${() => set(false, Math.round(Number(amount)))}>
        ${t("stock.set")}
      </button>
      ${row?.draining > 0 &&
      html`<p class="hint" data-testid="stock-draining">
        ${t("stock.draining", { n: row.draining })}
        <button type="button" class="link-button" disabled=${disabled} data-testid="stock-keep" onClick=${keep}>${t("stock.keep")}</button>
      </p>`}
      ${lower !== null &&
      html`<button type="button" class="pill" disabled=${disabled} data-testid="stock-drain" onClick=${() => set(true, lower)}>
        ${t("stock.drain")}
      </button>`}
      ${refusal && html`<p class="trouble" role="alert">${say(refusal)}</p>`}
    </li>
  `;
}
