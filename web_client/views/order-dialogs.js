/**
 * What a host does about an order, in dialogs: money back, a parcel, goods that came back.
 *
 * Each shows what it will come to before it is done, and keeps one Idempotency-Key for the same
 * contents, so that a press after a lost answer is the same press.
 */

import { html, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { currencyDigits, formatMoney } from "../money.js";
import { Once } from "../once.js";
import { minorUnits, pickable, picksOf, worth } from "../order-words.js";
import { newRid } from "../protocol.js";
import { Dialog } from "./dialog.js";
import { UnitPicker, everything } from "./unit-picker.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

const CARRIERS = ["DHL", "UPS", "FedEx", "Royal Mail", "顺丰速运", "中通快递"];

/** @returns {Once} for the life of a dialog */
export const useOnce = () => useRef(new Once(() => newRid(Date.now()))).current;

/**
 * Money back for units or as an amount; units that are still here may be kept from being sent.
 * @param {{token: string, file: any, whole?: boolean, onDone: (file: any) => void, onClose: () => void}} props
 *   `whole`: opened to cancel, so everything that is still here is chosen
 */
export function GiveBackDialog({ token, file, whole = false, onDone, onClose }) {
  const { t, language } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const [goods, setGoods] = useState(whole ? "restock" : "money");
  const [amount, setAmount] = useState("");
  const [reason, setReason] = useState("");
  const action = goods === "money" ? "refund" : "cancel";
  const lines = pickable(file, action);
  const [chosen, choose] = useState(/** @type {Record<number, number>} */ (whole ? everything(lines) : {}));
  const here = pickable(file, "cancel").length > 0 && file.cancellable;
  const { currency } = file.order.total;
  const fitting = Object.fromEntries(lines.map((line) => [line.position, Math.min(line.most, chosen[line.position] ?? 0)]));
  const picks = picksOf(fitting);
  const most = picks.length > 0 || goods !== "money" ? worth(file, picks, action) : file.refundable;
  const typed = amount.trim() === "" ? null : minorUnits(amount, currencyDigits(currency, language));
  const wrong = amount.trim() !== "" && (typed === null || typed > most);
  const value = goods === "money" && typed !== null ? typed : most;
  const money = { amount: value, currency };
  const ready = !wrong && (goods === "money" ? value > 0 && (picks.length > 0 || typed !== null) : picks.length > 0);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const units = picks.length > 0 ? { units: picks } : {};
    const body =
      goods === "money" ? { ...units, ...(typed !== null ? { amount: typed } : {}), reason } : { ...units, goods, reason };
    void work.run(async () => {
      onDone(await desk.orderAct(token, file.order.id, goods === "money" ? "refunds" : "cancel", body, once.key(body)));
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t(whole ? "desk.cancel_title" : "desk.refund_title")} onClose=${onClose} closeLabel=${t("close")} testid="give-back" busy=${work.busy}>
      <form class="sell" onSubmit=${submit}>
        ${here &&
        html`<fieldset class="choices">
          <legend>${t("desk.goods")}</legend>
          ${(whole ? ["restock", "write_off"] : ["money", "restock", "write_off"]).map(
            (name) => html`<label key=${name} class="tick">
              <input type="radio" name="goods" value=${name} checked=${goods === name} data-testid=${`goods-${name}`} onChange=${() => setGoods(name)} />
              <span>${t(`desk.goods.${name}`)}</span>
            </label>`,
          )}
        </fieldset>`}
        <${UnitPicker} lines=${lines} chosen=${fitting} onChange=${choose} />
        <div class="fields">
          ${goods === "money" &&
          html`<label class="field field-half">
            <span>${t("desk.amount", { currency })} <small>${t("optional")}</small></span>
            <input
              inputmode="decimal"
              value=${amount}
              aria-invalid=${wrong ? "true" : undefined}
              aria-describedby="refund-preview"
              placeholder=${formatMoney({ amount: most, currency }, language)}
              data-testid="refund-amount"
              onInput=${(/** @type {any} */ event) => setAmount(event.target.value)}
            />
          </label>`}
          <label class=${`field ${goods === "money" ? "field-half" : ""}`}>
            <span>${t("desk.reason")} <small>${t("optional")}</small></span>
            <input maxlength="200" value=${reason} data-testid="refund-reason" onInput=${(/** @type {any} */ event) => setReason(event.target.value)} />
          </label>
        </div>
        <p class="preview-sum" role="status" id="refund-preview" data-testid="refund-preview" data-amount=${ready ? value : 0}>
          ${wrong
            ? t("desk.amount_wrong", { most: formatMoney({ amount: most, currency }, language) })
            : ready
              ? t("desk.refund_preview", { money: formatMoney(money, language) })
              : t(goods === "money" ? "desk.choose_money" : "desk.choose_units")}
        </p>
        <${Trouble} refusal=${work.refusal} testid="dialog-trouble" />
        <button type="submit" class="primary" disabled=${!ready || work.busy} data-testid="give-back-submit">
          ${t(goods === "money" ? "desk.refund_do" : "desk.cancel_do", { money: formatMoney(money, language) })}
        </button>
      </form>
    <//>
  `;
}

/** @param {{token: string, file: any, onDone: (file: any) => void, onClose: () => void}} props */
export function ShipDialog({ token, file, onDone, onClose }) {
  const { t } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const lines = pickable(file, "ship");
  const [chosen, choose] = useState(everything(lines));
  const picks = picksOf(chosen);
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const body = { units: picks, carrier: String(data.get("carrier")).trim(), tracking: String(data.get("tracking")).trim() };
    void work.run(async () => {
      onDone(await desk.orderAct(token, file.order.id, "shipments", body, once.key(body)));
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("desk.ship_title")} onClose=${onClose} closeLabel=${t("close")} testid="ship-dialog" busy=${work.busy}>
      <form class="sell" onSubmit=${submit}>
        <${UnitPicker} lines=${lines} chosen=${chosen} onChange=${choose} />
        <div class="fields">
          <label class="field">
            <span>${t("desk.carrier")}</span>
            <input name="carrier" required maxlength="60" list="carriers" autocomplete="off" data-testid="ship-carrier" />
            <datalist id="carriers">${CARRIERS.map((name) => html`<option value=${name}></option>`)}</datalist>
          </label>
          <label class="field">
            <span>${t("desk.tracking")} <small>${t("optional")}</small></span>
            <input name="tracking" maxlength="120" autocomplete="off" data-testid="ship-tracking" />
          </label>
          <${Trouble} refusal=${work.refusal} testid="dialog-trouble" />
          <button type="submit" class="primary" disabled=${picks.length === 0 || work.busy} data-testid="ship-submit">${t("desk.ship_do")}</button>
        </div>
      </form>
    <//>
  `;
}

/** @param {{token: string, case_: any, onDone: (file: any) => void, onClose: () => void}} props */
export function ReceiveDialog({ token, case_, onDone, onClose }) {
  const { t } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const [goods, setGoods] = useState("restock");
  const [refund, setRefund] = useState(true);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const body = { goods, refund };
    void work.run(async () => {
      onDone(await desk.caseAct(token, "returns", case_.id, "receive", body, once.key(body)));
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("desk.receive_title")} onClose=${onClose} closeLabel=${t("close")} testid="receive-dialog" busy=${work.busy}>
      <form class="sell" onSubmit=${submit}>
        <fieldset class="choices">
          <legend>${t("desk.goods")}</legend>
          ${["restock", "write_off"].map(
            (name) => html`<label key=${name} class="tick">
              <input type="radio" name="goods" value=${name} checked=${goods === name} data-testid=${`receive-${name}`} onChange=${() => setGoods(name)} />
              <span>${t(`desk.receive.${name}`)}</span>
            </label>`,
          )}
        </fieldset>
        <label class="tick">
          <input type="checkbox" checked=${refund} data-testid="receive-refund" onChange=${() => setRefund(!refund)} />
          <span>${t("desk.receive_refund")}</span>
        </label>
        <${Trouble} refusal=${work.refusal} testid="dialog-trouble" />
        <button type="submit" class="primary" disabled=${work.busy} data-testid="receive-submit">${t("desk.receive_do")}</button>
      </form>
    <//>
  `;
}

/** A host records that something is to come back. @param {{token: string, file: any, onDone: (file: any) => void, onClose: () => void}} props */
export function ReturnDialog({ token, file, onDone, onClose }) {
  const { t } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const lines = pickable(file, "return");
  const [chosen, choose] = useState(everything(lines));
  const [reason, setReason] = useState("");
  const picks = picksOf(chosen);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const body = { units: picks, reason };
    void work.run(async () => {
      onDone(await desk.orderAct(token, file.order.id, "returns", body, once.key(body)));
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("desk.return_title")} onClose=${onClose} closeLabel=${t("close")} testid="return-dialog" busy=${work.busy}>
      <form class="sell" onSubmit=${submit}>
        <${UnitPicker} lines=${lines} chosen=${chosen} onChange=${choose} />
        <label class="field">
          <span>${t("desk.reason")} <small>${t("optional")}</small></span>
          <input maxlength="200" value=${reason} data-testid="return-reason" onInput=${(/** @type {any} */ event) => setReason(event.target.value)} />
        </label>
        <${Trouble} refusal=${work.refusal} testid="dialog-trouble" />
        <button type="submit" class="primary" disabled=${picks.length === 0 || work.busy} data-testid="return-submit">${t("desk.return_do")}</button>
      </form>
    <//>
  `;
}
