/**
 * One's own order: where it is, what it came to, its parcels, and what can be asked of the shop.
 *
 * Cancelling is at once while everything is still in the shop; a refund or return is a wish that the
 * host answers. What is possible is what the file says.
 */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { formatClaim, formatDate, formatMoney } from "../money.js";
import { pickable, picksOf, worth } from "../order-words.js";
import { openPage } from "../save.js";
import { Dialog } from "./dialog.js";
import { shortId } from "./hold-sheet.js";
import { useOnce } from "./order-dialogs.js";
import { Customer, Progress, Sums } from "./order-parts.js";
import { useSpeech } from "./speech.js";
import { UnitPicker, everything } from "./unit-picker.js";
import { Trouble, useWork } from "./work.js";

/** An answer of the host comes without a push, milliseconds. */
const LOOK_MS = 8_000;

/**
 * @param {{viewer: import("../viewer.js").Viewer, id: string, known: any, claim: unknown, onBack: () => void, onClose: () => void}} props
 *   `known`: the order as it was pushed last
 */
export function MyOrder({ viewer, id, known, claim, onBack, onClose }) {
  const { t, language } = useSpeech();
  const [file, setFile] = useState(/** @type {any} */ (null));
  const [asking, ask] = useState(/** @type {"" | "cancel" | "refunds" | "returns"} */ (""));
  const [done, say] = useState(/** @type {"" | "cancel" | "refunds" | "returns"} */ (""));
  const load = useWork();
  const work = useWork();
  const token = viewer.token ?? "";
  const look = () => load.run(async () => setFile(await desk.orderFile(token, id)));
  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, [id, known?.updated_at, known?.state]);
  const order = file?.order ?? known;
  // After a reload the hold is gone from the page; its receipt is still in the log.
  const [logged, setLogged] = useState(/** @type {unknown} */ (null));
  useEffect(() => {
    if (!claim && order?.rid) desk.claim(token, order.rid).then(setLogged, () => {});
  }, [order?.rid]);
  const number = formatClaim(claim ?? logged, language);
  const said = done && t(`my.said.${done}`);
  const wished = file?.refunds.some((/** @type {any} */ one) => one.state === "asked");
  return html`
    <${Dialog} title=${t("order.number", { id: shortId(id) })} onClose=${onClose} closeLabel=${t("close")} testid="my-order-sheet">
      ${!file && !load.refusal && html`<span class="spinner spinner-big" role="img" aria-label=${t("loading")}></span>`}
      ${!file && html`<${Trouble} refusal=${load.refusal} onAgain=${look} />`}
      ${order &&
      file &&
      html`<div class="my-order" data-testid="order-detail" data-state=${order.state} data-order=${id}>
        <p class="my-order-state" role="status" data-testid="order-words">${t(`order.words.${order.state}`)}</p>
        <${Progress} state=${order.state} />
        <p class="hint">${formatDate(order.at, language)}${number && html` · <span data-testid="order-claim">${t("hold.receipt", { claim: number })}</span>`}</p>
        <ul class="lines">
          ${order.lines.map((/** @type {any} */ line, /** @type {number} */ position) => {
            const units = file.units.filter((/** @type {any} */ unit) => unit.position === position);
            const states = [...new Set(units.map((/** @type {any} */ unit) => unit.state))];
            return html`<li key=${position}>
              <span><b>${line.quantity} ×</b> ${line.title}</span>
              ${(states.length > 1 || !["sold", ...(order.state === "shipped" ? ["shipped"] : []), ...(order.state === "delivered" ? ["delivered"] : [])].includes(String(states[0]))) &&
              html`<span class="unit-states">${states.map((state) => html`<span key=${state} class=${`unit unit-${state}`} data-testid="my-unit" data-state=${state}>${units.filter((/** @type {any} */ unit) => unit.state === state).length} ${t(`my.unit.${state}`)}</span>`)}</span>`}
            </li>`;
          })}
        </ul>
        <${Sums} file=${file} />
        ${file.shipments.map(
          (/** @type {any} */ one) => html`<p key=${one.id} class="case" data-testid="my-parcel" data-state=${one.state}>
            <span class="case-words">
              <b>${t(`shipment.state.${one.state}`)}: ${one.carrier}</b>
              ${one.tracking && html`<span class="tracking" data-testid="my-tracking">${one.tracking}</span>`}
              <small>${t("desk.units_n", { n: one.units.length })} · ${formatDate(one.at, language)}</small>
            </span>
          </p>`,
        )}
        ${[...file.refunds].map(
          (/** @type {any} */ one) => html`<p key=${one.id} class="case" data-testid="my-refund" data-state=${one.state}>
            <span class="case-words"><b>${formatMoney({ amount: one.amount, currency: order.total.currency }, language)}</b> ${t(`my.refund.${one.state}`)} <small>${formatDate(one.updated_at, language)}</small></span>
          </p>`,
        )}
        ${file.returns.map(
          (/** @type {any} */ one) => html`<p key=${one.id} class="case" data-testid="my-return" data-state=${one.state}>
            <span class="case-words"><b>${t("desk.units_n", { n: one.units.length })}</b> ${t(`my.return.${one.state}`)} <small>${formatDate(one.updated_at, language)}</small></span>
          </p>`,
        )}
        <p class="hidden-text" role="status">${said}</p>
        ${said && html`<p class="hint" data-testid="my-said">${said}</p>`}
        <${Trouble} refusal=${work.refusal} testid="my-order-trouble" />
        ${asking
          ? html`<${Wish}
              key=${asking}
              token=${token}
              file=${file}
              what=${asking}
              onDone=${(/** @type {any} */ now) => {
                setFile({ ...now, customer: file.customer });
                viewer.purchases.putOrder(now.order);
                say(asking);
                ask("");
              }}
              onClose=${() => ask("")}
            />`
          : html`<div class="order-actions">
              ${file.cancellable && html`<button type="button" class="pill" data-testid="my-cancel" onClick=${() => ask("cancel")}>${t("my.cancel")}</button>`}
              ${!file.cancellable && pickable(file, "return").length > 0 && html`<button type="button" class="pill" data-testid="my-return-ask" onClick=${() => ask("returns")}>${t("my.return")}</button>`}
              ${!file.cancellable && file.refundable > 0 && !wished && html`<button type="button" class="pill" data-testid="my-refund-ask" onClick=${() => ask("refunds")}>${t("my.refund")}</button>`}
              <button type="button" class="pill" disabled=${work.busy} data-testid="my-receipt" onClick=${() => work.run(() => openPage(() => desk.receipt(token, id, language), "/static/styles/receipt.css"))}>
                ${t("desk.do.receipt")}
              </button>
            </div>`}
        <${Customer} customer=${file.customer} />
        <button type="button" class="quiet" data-testid="my-order-back" onClick=${onBack}>${t("my.all")}</button>
      </div>`}
    <//>
  `;
}

/**
 * @param {{token: string, file: any, what: "cancel" | "refunds" | "returns", onDone: (file: any) => void, onClose: () => void}} props
 */
function Wish({ token, file, what, onDone, onClose }) {
  const { t, language } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const action = /** @type {const} */ ({ cancel: "cancel", refunds: "refund", returns: "return" })[what];
  const lines = pickable(file, action);
  const [chosen, choose] = useState(everything(lines));
  const [reason, setReason] = useState("");
  const picks = picksOf(chosen);
  const money = formatMoney({ amount: worth(file, picks, action), currency: file.order.total.currency }, language);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const body = { units: picks, reason };
    void work.run(async () => onDone(await desk.orderAct(token, file.order.id, what, body, once.key(body))));
  };
  return html`<form class="wish" onSubmit=${submit} data-testid="wish-form">
    <h3>${t(`my.ask.${what}`)}</h3>
    <${UnitPicker} lines=${lines} chosen=${chosen} onChange=${choose} />
    <label class="field">
      <span>${t("my.reason")} ${what === "cancel" && html`<small>${t("optional")}</small>`}</span>
      <input maxlength="200" required=${what !== "cancel"} value=${reason} data-testid="wish-reason" onInput=${(/** @type {any} */ event) => setReason(event.target.value)} />
    </label>
    <p class="preview-sum" role="status" data-testid="wish-preview">${t(`my.preview.${what}`, { money })}</p>
    <${Trouble} refusal=${work.refusal} testid="wish-trouble" />
    <button type="submit" class="primary" disabled=${picks.length === 0 || work.busy} data-testid="wish-submit">${t(`my.do.${what}`)}</button>
    <button type="button" class="quiet" onClick=${onClose}>${t("my.not_now")}</button>
  </form>`;
}
