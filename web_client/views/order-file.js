/**
 * One order with everything about it, for its host: units, money, address, cases, timeline, actions.
 *
 * Stands in a page of its own and in a dialog over the console. What is possible is what the file
 * says; every answer is the new file.
 */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { formatDate, formatMoney } from "../money.js";
import { pickable, unitsByLine } from "../order-words.js";
import { openPage } from "../save.js";
import { shortId } from "./hold-sheet.js";
import { BuyerData } from "./buyer-data.js";
import { GiveBackDialog, ReceiveDialog, ReturnDialog, ShipDialog, useOnce } from "./order-dialogs.js";
import { Customer, Sums } from "./order-parts.js";
import { OrderTimeline } from "./order-timeline.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** While an order is in sight it is asked for again, milliseconds: wishes come without a push. */
const LOOK_MS = 10_000;

/** @param {{token: string, id: string, version?: unknown, onChange?: (order: any) => void}} props `version`: another one means that something was pushed */
export function OrderFile({ token, id, version, onChange }) {
  const { t, language } = useSpeech();
  const [file, setFile] = useState(/** @type {any} */ (null));
  const [open, setOpen] = useState(/** @type {any} */ (null));
  const load = useWork();
  const work = useWork();
  const once = useOnce();
  const look = () => load.run(async () => setFile(await desk.orderFile(token, id)));
  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, [id, version]);
  if (!file) {
    return load.refusal
      ? html`<${Trouble} refusal=${load.refusal} onAgain=${look} />`
      : html`<span class="spinner spinner-big" role="img" aria-label=${t("loading")}></span>`;
  }
  const changed = (/** @type {any} */ now) => {
    setFile({ ...now, buyer: file.buyer, customer: file.customer });
    onChange?.(now.order);
  };
  const step = (/** @type {any} */ what, /** @type {string} */ case_, /** @type {any} */ name) =>
    work.run(async () => changed(await desk.caseAct(token, what, case_, name, null, once.key([what, case_, name]))));
  const money = (/** @type {number} */ amount) => formatMoney({ amount, currency: file.order.total.currency }, language);
  const { order } = file;
  const button = (/** @type {string} */ name, /** @type {boolean} */ possible) =>
    possible &&
    html`<button type="button" class="pill" data-testid=${`do-${name}`} onClick=${() => setOpen({ name })}>${t(`desk.do.${name}`)}</button>`;
  return html`
    <article class="order-file" data-testid="order-file" data-state=${order.state} data-order=${order.id}>
      <p class="order-file-head">
        <b class=${`order-state order-${order.state}`} data-testid="file-state">${t(`order.state.${order.state}`)}</b>
        <span>${t("order.number", { id: shortId(order.id) })} · ${formatDate(order.at, language)}</span>
      </p>
      <div class="order-actions">
        ${button("ship", pickable(file, "ship").length > 0 && order.state !== "placed")}
        ${button("refund", file.refundable > 0)}
        ${button("cancel", file.cancellable)}
        ${button("return", pickable(file, "return").length > 0)}
        <button type="button" class="pill" disabled=${work.busy} data-testid="do-receipt" onClick=${() => work.run(() => openPage(() => desk.receipt(token, id, language), "/static/styles/receipt.css"))}>
          ${t("desk.do.receipt")}
        </button>
      </div>
      <${Trouble} refusal=${work.refusal} testid="file-trouble" />
      <section aria-label=${t("desk.units")}>
        <ul class="file-lines">
          ${unitsByLine(file).map(
            (/** @type {any} */ line) => html`<li key=${line.position} data-testid="file-line">
              <span><b>${line.quantity} × ${line.title}</b> <small>${line.sku}</small></span>
              <span class="unit-states">
                ${line.states.map((/** @type {any} */ [state, n]) => html`<span key=${state} class=${`unit unit-${state}`} data-testid="unit-state" data-state=${state}>${n} ${t(`unit.${state}`)}</span>`)}
              </span>
            </li>`,
          )}
        </ul>
        <${Sums} file=${file} />
      </section>
      <${Customer} customer=${file.customer} />
      ${file.customer && html`<${BuyerData} token=${token} buyer=${file.buyer} onForgotten=${look} />`}
      ${file.refunds.length > 0 &&
      html`<section aria-label=${t("desk.refunds")}>
        <h3>${t("desk.refunds")}</h3>
        <ul class="cases">
          ${file.refunds.map(
            (/** @type {any} */ one) => html`<li key=${one.id} class="case" data-testid="refund-case" data-state=${one.state}>
              <span class="case-words">
                <b>${money(one.amount)}</b> ${t(`refund.state.${one.state}`)}
                <small>${[one.reason, one.failure, formatDate(one.at, language)].filter(Boolean).join(" · ")}</small>
              </span>
              ${one.state === "asked" &&
              html`<span class="case-buttons">
                <button type="button" class="pill pill-strong" disabled=${work.busy || one.amount > file.refundable} data-testid="refund-approve" onClick=${() => step("refunds", one.id, "approve")}>${t("desk.yes_refund")}</button>
                <button type="button" class="pill" disabled=${work.busy} data-testid="refund-reject" onClick=${() => step("refunds", one.id, "reject")}>${t("desk.no")}</button>
              </span>`}
            </li>`,
          )}
        </ul>
      </section>`}
      ${file.returns.length > 0 &&
      html`<section aria-label=${t("desk.returns")}>
        <h3>${t("desk.returns")}</h3>
        <ul class="cases">
          ${file.returns.map(
            (/** @type {any} */ one) => html`<li key=${one.id} class="case" data-testid="return-case" data-state=${one.state}>
              <span class="case-words">
                <b>${t("desk.units_n", { n: one.units.length })}</b> ${t(`return.state.${one.state}`)}
                <small>${[one.reason, one.goods && t(`desk.receive.${one.goods}`), formatDate(one.at, language)].filter(Boolean).join(" · ")}</small>
              </span>
              <span class="case-buttons">
                ${one.state === "requested" &&
                html`<button type="button" class="pill pill-strong" disabled=${work.busy} data-testid="return-approve" onClick=${() => step("returns", one.id, "approve")}>${t("desk.yes_return")}</button>`}
                ${one.state === "approved" &&
                html`<button type="button" class="pill pill-strong" disabled=${work.busy} data-testid="return-receive" onClick=${() => setOpen({ name: "receive", case_: one })}>${t("desk.received")}</button>`}
                ${["requested", "approved"].includes(one.state) &&
                html`<button type="button" class="pill" disabled=${work.busy} data-testid="return-reject" onClick=${() => step("returns", one.id, "reject")}>${t("desk.no")}</button>`}
              </span>
            </li>`,
          )}
        </ul>
      </section>`}
      ${file.shipments.length > 0 &&
      html`<section aria-label=${t("desk.shipments")}>
        <h3>${t("desk.shipments")}</h3>
        <ul class="cases">
          ${file.shipments.map(
            (/** @type {any} */ one) => html`<li key=${one.id} class="case" data-testid="shipment-case" data-state=${one.state}>
              <span class="case-words">
                <b>${one.carrier}</b> ${one.tracking && html`<span class="tracking">${one.tracking}</span>`} ${t(`shipment.state.${one.state}`)}
                <small>${t("desk.units_n", { n: one.units.length })} · ${formatDate(one.at, language)}</small>
              </span>
              <span class="case-buttons">
                ${["shipped", "lost"].includes(one.state) &&
                html`<button type="button" class="pill" disabled=${work.busy} data-testid="shipment-deliver" onClick=${() => step("shipments", one.id, "deliver")}>${t("desk.delivered")}</button>`}
                ${one.state === "shipped" &&
                html`<button type="button" class="pill" disabled=${work.busy} data-testid="shipment-lose" onClick=${() => step("shipments", one.id, "lose")}>${t("desk.lost")}</button>`}
              </span>
            </li>`,
          )}
        </ul>
      </section>`}
      <${OrderTimeline} token=${token} file=${file} />
      ${open?.name === "ship" && html`<${ShipDialog} token=${token} file=${file} onDone=${changed} onClose=${() => setOpen(null)} />`}
      ${["refund", "cancel"].includes(open?.name) &&
      html`<${GiveBackDialog} token=${token} file=${file} whole=${open.name === "cancel"} onDone=${changed} onClose=${() => setOpen(null)} />`}
      ${open?.name === "return" && html`<${ReturnDialog} token=${token} file=${file} onDone=${changed} onClose=${() => setOpen(null)} />`}
      ${open?.name === "receive" && html`<${ReceiveDialog} token=${token} case_=${open.case_} onDone=${changed} onClose=${() => setOpen(null)} />`}
    </article>
  `;
}
