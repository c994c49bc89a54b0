/** The shop's own work: what buyers asked for, what runs out, terms, coupons, and the provider's books. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { formatDate, formatMoment, formatMoney } from "../money.js";
import { spoken } from "../order-words.js";
import { Coupons } from "./coupons-panel.js";
import { useOnce } from "./order-dialogs.js";
import { shortId } from "./hold-sheet.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** Wishes come without a push, milliseconds. */
const LOOK_MS = 15_000;
const DAYS = [1, 3, 7, 30];

/** @param {{who: any, onOpen: (order: string) => void}} props */
export function OfficePage({ who, onOpen }) {
  const [saves, setSaves] = useState(0);
  return html`<div class="host-home-grid office" data-testid="office-page">
    <div class="stack">
      <${Wishes} token=${who.token} onOpen=${onOpen} />
      <${Books} token=${who.token} />
    </div>
    <div class="stack">
      <${LowStock} token=${who.token} version=${saves} />
      <${Terms} token=${who.token} onSaved=${() => setSaves(saves + 1)} />
      <${Coupons} token=${who.token} />
    </div>
  </div>`;
}

/** @param {{token: string, onOpen: (order: string) => void}} props */
function Wishes({ token, onOpen }) {
  const { t, language } = useSpeech();
  const [found, setFound] = useState(/** @type {any[] | null} */ (null));
  const work = useWork();
  const look = () => work.run(async () => setFound(await desk.wishes(token)));
  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<section class="panel" aria-label=${t("wishes")}>
    <h2>${t("wishes")}</h2>
    <${Trouble} refusal=${work.refusal} onAgain=${look} />
    ${found?.length === 0 && html`<p class="empty">${t("wishes.empty")}</p>`}
    <ul class="desk-rows" data-testid="wishes">
      ${(found ?? []).map(
        (one) => html`<li key=${one.id}>
          <button type="button" class="desk-row" disabled=${!one.order} data-testid="wish" data-kind=${one.kind} data-state=${one.state} onClick=${() => onOpen(one.order)}>
            <span class="desk-row-words">
              <b>${t(`wish.${one.kind}.${one.state}`)}</b>
              <small>${one.order ? t("order.number", { id: shortId(one.order) }) : t("wish.no_order")} · ${formatDate(one.at, language)}</small>
            </span>
          </button>
        </li>`,
      )}
    </ul>
  </section>`;
}

/** @param {{token: string, version: number}} props `version`: another one means that the threshold may have changed */
function LowStock({ token, version }) {
  const { t } = useSpeech();
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [atMost, setAtMost] = useState("");
  const work = useWork();
  const look = () => {
    const n = atMost.trim() === "" ? null : Math.max(0, Math.round(Number(atMost)));
    return work.run(async () => setFound(await desk.lowStock(token, Number.isFinite(n) ? n : null)));
  };
  useEffect(() => {
    const timer = setTimeout(() => void look(), atMost ? 300 : 0);
    return () => clearTimeout(timer);
  }, [atMost, version]);
  return html`<section class="panel" aria-label=${t("low")}>
    <header class="panel-head">
      <h2>${t("low")}</h2>
      <label class="low-limit">
        <span>${t("low.at_most")}</span>
        <input type="number" min="0" max="1000000" class="text-input" value=${atMost} placeholder=${found?.threshold ?? ""} data-testid="low-at-most" onInput=${(/** @type {any} */ event) => setAtMost(event.target.value)} />
      </label>
    </header>
    <${Trouble} refusal=${work.refusal} onAgain=${look} />
    ${found?.skus.length === 0 && html`<p class="empty">${t("low.none")}</p>`}
    <ul class="low-rows" data-testid="low-stock">
      ${(found?.skus ?? []).map(
        (/** @type {any} */ row) => html`<li key=${row.sku} class="low-row" data-testid="low-row" data-sku=${row.sku}>
          <b>${row.sku}</b>
          <span class=${row.available === 0 ? "left-none" : "left-low"}>${t("stock.available", { n: row.available })}</span>
          <small>${t("stock.numbers", { on_hand: row.on_hand, held: row.held, committed: row.committed })}</small>
        </li>`,
      )}
    </ul>
  </section>`;
}

/** @param {{token: string, onSaved: () => void}} props */
function Terms({ token, onSaved }) {
  const { t } = useSpeech();
  const once = useOnce();
  const [terms, setTerms] = useState(/** @type {any} */ (null));
  const [saved, setSaved] = useState(false);
  const load = useWork();
  const work = useWork();
  const look = () => load.run(async () => setTerms(await desk.terms(token)));
  useEffect(() => void look(), []);
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const body = {
      tax_bp: Math.round(Number(data.get("tax")) * 100),
      tax_title: String(data.get("title")).trim(),
      low_stock: Math.round(Number(data.get("low"))),
    };
    setSaved(false);
    void work.run(async () => {
      setTerms(await desk.putTerms(token, body, once.key(body)));
      once.done();
      setSaved(true);
      onSaved();
    });
  };
  return html`<section class="panel" aria-label=${t("terms")}>
    <h2>${t("terms")}</h2>
    <${Trouble} refusal=${load.refusal} onAgain=${look} />
    ${terms &&
    html`<form class="fields" onSubmit=${submit} onInput=${() => setSaved(false)} data-testid="terms">
      <label class="field field-half">
        <span>${t("terms.tax")}</span>
        <input name="tax" type="number" min="0" max="100" step="0.01" required defaultValue=${terms.tax_bp / 100} data-testid="terms-tax" />
      </label>
      <label class="field field-half">
        <span>${t("terms.title")}</span>
        <input name="title" maxlength="60" defaultValue=${terms.tax_title} data-testid="terms-title" />
      </label>
      <label class="field">
        <span>${t("terms.low")}</span>
        <input name="low" type="number" min="0" max="1000000" step="1" required defaultValue=${terms.low_stock} data-testid="terms-low" />
      </label>
      <p class="hint field">${t("terms.hint")}</p>
      <${Trouble} refusal=${work.refusal} />
      <button type="submit" class="primary" disabled=${work.busy} data-testid="terms-save">${t("terms.save")}</button>
      <p class="hint field" role="status" data-testid="terms-saved">${saved ? t("terms.saved") : ""}</p>
    </form>`}
  </section>`;
}

/** @param {{token: string}} props */
function Books({ token }) {
  const { t, texts, language } = useSpeech();
  const [days, setDays] = useState(3);
  const [report, setReport] = useState(/** @type {any} */ (null));
  const work = useWork();
  const run = () => work.run(async () => setReport(await desk.reconcile(token, days)));
  const named = (/** @type {string} */ prefix, /** @type {string} */ name) =>
    texts[`${prefix}.${name}`] ? t(`${prefix}.${name}`) : name.replace(/_/g, " ");
  const fine = report && report.differences.length === 0 && report.faults.length === 0;
  return html`<section class="panel" aria-label=${t("books")}>
    <h2>${t("books")}</h2>
    <p class="hint">${t("books.hint")}</p>
    <div class="books-run">
      <label class="filter">
        <span class="hidden-text">${t("books.days")}</span>
        <select class="text-input" data-testid="books-days" onChange=${(/** @type {any} */ event) => setDays(Number(event.target.value))}>
          ${DAYS.map((n) => html`<option key=${n} value=${n} selected=${n === days}>${t("books.last_days", { n })}</option>`)}
        </select>
      </label>
      <button type="button" class="secondary" disabled=${work.busy} data-testid="books-run" onClick=${run}>
        ${work.busy && html`<span class="spinner" aria-hidden="true"></span> `}${t("books.run")}
      </button>
    </div>
    <${Trouble} refusal=${work.refusal} />
    <div role="status">
      ${report &&
      html`<div class="books-report" data-testid="books-report" data-fine=${fine}>
        <p class=${fine ? "books-fine" : "books-wrong"}>
          ${fine ? t("books.fine", { n: report.charges }) : t("books.differ", { n: report.differences.length + report.faults.length })}
        </p>
        ${!report.complete && html`<p class="hint">${t("books.incomplete")}</p>`}
        <ul class="low-rows">
          ${report.differences.map(
            (/** @type {any} */ one) => html`<li key=${one.intent + one.kind} class="low-row">
              <b>${named("difference", one.kind)}</b>
              <span>${t("books.ours_theirs", { ours: formatMoney({ amount: one.ours, currency: one.currency }, language), theirs: formatMoney({ amount: one.theirs, currency: one.currency }, language) })}</span>
              <small>${one.intent}</small>
            </li>`,
          )}
          ${report.faults.map((/** @type {any} */ one) => html`<li key=${one.kind + one.what} class="low-row"><b>${named("fault", one.kind)}</b><span>${one.amount}</span><small>${one.what}</small></li>`)}
        </ul>
        ${Object.entries(report.balances).map(
          ([currency, accounts]) => html`<dl class="sums" key=${currency}>
            ${Object.entries(/** @type {Record<string, number>} */ (accounts)).map(
              ([account, amount]) => html`<div key=${account}><dt>${named("account", account)}</dt><dd>${formatMoney({ amount: spoken(account, amount), currency }, language)}</dd></div>`,
            )}
          </dl>`,
        )}
        <p class="hint">${t("books.at", { time: formatMoment(report.at, language) })}</p>
      </div>`}
    </div>
  </section>`;
}
