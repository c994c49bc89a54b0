/** The shop's coupons: how far each is used up, and a form that makes one or changes it. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import * as desk from "../api-desk.js";
import { couponOf, couponState, fieldTime } from "../coupons.js";
import { currencyDigits, formatDate, formatReduction } from "../money.js";
import { Dialog } from "./dialog.js";
import { useOnce } from "./order-dialogs.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @typedef {import("../coupons.js").Coupon} Coupon */

/** @param {{token: string}} props */
export function Coupons({ token }) {
  const { t, language } = useSpeech();
  const [found, setFound] = useState(/** @type {Coupon[] | null} */ (null));
  const [currency, setCurrency] = useState("");
  const [open, setOpen] = useState(/** @type {Coupon | "new" | null} */ (null));
  const [saved, setSaved] = useState("");
  const work = useWork();
  const look = () =>
    work.run(async () => {
      const [coupons, shop] = await Promise.all([desk.coupons(token), api.shop(token)]);
      setFound(coupons);
      setCurrency(shop.currency);
    });
  useEffect(() => void look(), []);
  const edit = (/** @type {Coupon | "new"} */ one) => {
    setSaved("");
    setOpen(one);
  };
  const words = (/** @type {Coupon} */ one) => {
    const state = couponState(one, Date.now());
    return [
      formatReduction(one, currency, language),
      t("coupons.used", { used: one.used, n: one.uses_max }),
      ...(state === "open" ? [] : [t(`coupons.state.${state}`)]),
      ...(one.ends_at !== null && state !== "ended" ? [t("coupons.until", { time: formatDate(one.ends_at, language) })] : []),
    ].join(" · ");
  };
  return html`<section class="panel" aria-label=${t("coupons")}>
    <header class="panel-head">
      <h2>${t("coupons")}</h2>
      ${found && html`<button type="button" class="link-button" data-testid="coupon-new" onClick=${() => edit("new")}>${t("coupons.new")}</button>`}
    </header>
    <p class="hint">${t("coupons.hint")}</p>
    <${Trouble} refusal=${work.refusal} onAgain=${look} />
    ${found?.length === 0 && html`<p class="empty">${t("coupons.none")}</p>`}
    <ul class="desk-rows" data-testid="coupons">
      ${(found ?? []).map(
        (one) => html`<li key=${one.code}>
          <button type="button" class="desk-row" data-testid="coupon-row" data-code=${one.code} data-state=${couponState(one, Date.now())} onClick=${() => edit(one)}>
            <span class="desk-row-words">
              <b>${one.code}</b> ${one.title}
              <small>${words(one)}</small>
            </span>
          </button>
        </li>`,
      )}
    </ul>
    <p class="hint" role="status" data-testid="coupon-saved">${saved && t("coupons.saved", { code: saved })}</p>
    ${open &&
    html`<${CouponDialog}
      token=${token}
      coupon=${open === "new" ? null : open}
      currency=${currency}
      known=${(found ?? []).map((one) => one.code)}
      onSaved=${(/** @type {Coupon} */ one) => {
        setSaved(one.code);
        setOpen(null);
        void look();
      }}
      onClose=${() => setOpen(null)}
    />`}
  </section>`;
}

/**
 * @param {{token: string, coupon: Coupon | null, currency: string, known: string[],
 *   onSaved: (coupon: Coupon) => void, onClose: () => void}} props `coupon` null: a new one
 */
function CouponDialog({ token, coupon, currency, known, onSaved, onClose }) {
  const { t, language } = useSpeech();
  const once = useOnce();
  const digits = currencyDigits(currency, language);
  const [typed, setTyped] = useState(() => ({
    code: coupon?.code ?? "",
    title: coupon?.title ?? "",
    kind: coupon && coupon.amount !== null ? "amount" : "percent",
    value: !coupon ? "" : coupon.amount !== null ? (coupon.amount / 10 ** digits).toFixed(digits) : String((coupon.percent_bp ?? 0) / 100),
    uses: coupon ? String(coupon.uses_max) : "100",
    ends: fieldTime(coupon?.ends_at ?? null),
  }));
  const [wrong, setWrong] = useState("");
  const work = useWork();
  const fewer = work.refusal?.code === "terms_fixed";
  const said = fewer ? "fewer" : wrong;
  const at = { known: "code", fewer: "uses" }[said] ?? said;
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    if (work.busy) return;
    const { ends } = event.target.elements;
    // A date of which a part is missing reads as none at all.
    const { code, body, wrong: field } = couponOf({ ...typed, ends: ends.validity.badInput ? "?" : typed.ends }, digits);
    const twice = !coupon && known.includes(code);
    setWrong(field || (twice ? "known" : ""));
    if (field || twice) {
      event.target.elements[field || "code"].focus();
      return;
    }
    // A date field knows minutes: an end that nobody touched stays as it is.
    if (coupon && typed.ends === fieldTime(coupon.ends_at)) body.ends_at = coupon.ends_at;
    void work.run(async () => {
      const made = await desk.putCoupon(token, code, body, once.key([code, body]));
      once.done();
      onSaved(made);
    });
  };
  const input = (/** @type {keyof typeof typed} */ name, /** @type {any} */ more = {}) => html`<input
    name=${name}
    value=${typed[name]}
    aria-invalid=${at === name ? "true" : "false"}
    aria-describedby=${at === name ? "coupon-wrong" : undefined}
    data-testid=${`coupon-${name}`}
    onInput=${(/** @type {any} */ event) => setTyped((all) => ({ ...all, [name]: event.target.value }))}
    ...${more}
  />`;
  return html`<${Dialog}
    title=${coupon ? t("coupons.change", { code: coupon.code }) : t("coupons.new")}
    onClose=${onClose}
    closeLabel=${t("close")}
    testid="coupon-dialog"
    busy=${work.busy}
  >
    <form class="fields" onSubmit=${submit} novalidate>
      ${!coupon &&
      html`<label class="field">
        <span>${t("coupons.code")}</span>
        ${input("code", { maxlength: 40, required: true, autocomplete: "off", autocapitalize: "characters", spellcheck: false })}
        <small>${t("coupons.code_hint")}</small>
      </label>`}
      <label class="field">
        <span>${t("discount.title")}</span>
        ${input("title", { maxlength: 60, required: true })}
      </label>
      <label class="field field-half">
        <span>${t("discount.kind")}</span>
        <select name="kind" value=${typed.kind} data-testid="coupon-kind" onChange=${(/** @type {any} */ event) => setTyped((all) => ({ ...all, kind: event.target.value }))}>
          <option value="percent" selected=${typed.kind === "percent"}>%</option>
          <option value="amount" selected=${typed.kind === "amount"}>${currency}</option>
        </select>
      </label>
      <label class="field field-half">
        <span>${t("discount.value")}</span>
        ${input("value", { inputmode: "decimal", required: true })}
      </label>
      <label class="field">
        <span>${t("coupons.uses")}</span>
        ${input("uses", { inputmode: "numeric", required: true })}
      </label>
      <label class="field">
        <span>${t("coupons.ends")} <small>${t("optional")}</small></span>
        ${input("ends", { type: "datetime-local" })}
        <small>${t("coupons.ends_hint")}</small>
      </label>
      ${said && html`<p id="coupon-wrong" class="trouble" role="alert" data-testid="coupon-wrong" data-why=${said}><span>${t(`coupons.wrong.${said}`)}</span></p>`}
      <${Trouble} refusal=${fewer ? null : work.refusal} testid="coupon-trouble" />
      <button type="submit" class="primary" disabled=${work.busy} data-testid="coupon-save">${t("coupons.save")}</button>
    </form>
  <//>`;
}
