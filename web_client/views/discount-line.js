/** What a sale takes off, set by its host before the first reservation. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { currencyDigits, formatReduction } from "../money.js";
import { reduction } from "../order-words.js";
import { Dialog } from "./dialog.js";
import { useOnce } from "./order-dialogs.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @param {{token: string, drop: any, editable: boolean}} props */
export function DiscountLine({ token, drop, editable }) {
  const { t, language } = useSpeech();
  const once = useOnce();
  const [discount, setDiscount] = useState(/** @type {any} */ (null));
  const [open, setOpen] = useState(false);
  const [kind, setKind] = useState("percent");
  const [wrong, setWrong] = useState(false);
  const work = useWork();
  const currency = drop.lines[0]?.price.currency;
  useEffect(() => void desk.discount(drop.id).then(setDiscount, () => {}), [drop.id]);
  const put = (/** @type {any} */ body) =>
    work.run(async () => {
      setDiscount(await desk.putDiscount(token, drop.id, body, once.key(body)));
      once.done();
      setOpen(false);
    });
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const rule = reduction(kind, String(data.get("value")), currencyDigits(currency, language));
    setWrong(!rule);
    if (rule) void put({ title: String(data.get("title")).trim(), ...rule });
  };
  const words = discount && `${discount.title}: ${formatReduction(discount, currency, language)}`;
  if (!discount && !editable) return null;
  return html`<div class="drop-discount">
    ${words && html`<span data-testid="drop-discount">${words}</span>`}
    ${editable && html`<button type="button" class="link-button" data-testid="discount-edit" onClick=${() => setOpen(true)}>${t(discount ? "discount.change" : "discount.add")}</button>`}
    ${open &&
    html`<${Dialog} title=${t("discount")} onClose=${() => setOpen(false)} closeLabel=${t("close")} testid="discount-dialog" busy=${work.busy}>
      <p class="hint">${t("discount.hint")}</p>
      <form class="fields" onSubmit=${submit}>
        <label class="field">
          <span>${t("discount.title")}</span>
          <input name="title" required maxlength="60" defaultValue=${discount?.title ?? ""} data-testid="discount-title" />
        </label>
        <label class="field field-half">
          <span>${t("discount.kind")}</span>
          <select value=${kind} data-testid="discount-kind" onChange=${(/** @type {any} */ event) => setKind(event.target.value)}>
            <option value="percent" selected=${kind === "percent"}>%</option>
            <option value="amount" selected=${kind === "amount"}>${currency}</option>
          </select>
        </label>
        <label class="field field-half">
          <span>${t("discount.value")}</span>
          <input name="value" inputmode="decimal" required aria-invalid=${wrong ? "true" : undefined} data-testid="discount-value" />
        </label>
        ${wrong && html`<p class="trouble" role="alert" data-testid="discount-wrong">${t("discount.wrong")}</p>`}
        <${Trouble} refusal=${work.refusal} testid="discount-trouble" />
        <button type="submit" class="primary" disabled=${work.busy} data-testid="discount-save">${t("discount.save")}</button>
        ${discount && html`<button type="button" class="quiet field" disabled=${work.busy} data-testid="discount-remove" onClick=${() => put(null)}>${t("discount.remove")}</button>`}
      </form>
    <//>`}
  </div>`;
}
