/** The code of a coupon, for whoever has one. A refusal is said here, and what was typed stays. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import { useSpeech } from "./speech.js";

/**
 * @param {{value: string, reason: string, onInput: (text: string) => void}} props `reason`: why it was refused, "" if it was not
 */
export function CouponField({ value, reason, onInput }) {
  const { t } = useSpeech();
  const [open, setOpen] = useState(value !== "");
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    if (!reason) return;
    setOpen(true);
    field.current?.focus();
  }, [reason]);
  return html`<details class="coupon" open=${open || reason !== ""} data-testid="coupon" onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
    <summary data-testid="coupon-have">${t("coupon.have")}</summary>
    <label class="field">
      <span>${t("coupon.code")} <small>${t("optional")}</small></span>
      <input
        ref=${field}
        name="coupon"
        maxlength="40"
        autocomplete="off"
        autocapitalize="characters"
        spellcheck=${false}
        value=${value}
        aria-invalid=${reason ? "true" : "false"}
        aria-describedby=${reason ? "coupon-refused coupon-hint" : "coupon-hint"}
        data-testid="coupon-code"
        onInput=${(/** @type {any} */ event) => onInput(event.target.value)}
      />
    </label>
    ${reason && html`<p id="coupon-refused" class="trouble" role="alert" data-testid="coupon-refused" data-reason=${reason}><span>${t(`coupon.refused.${reason}`)}</span></p>`}
    <p id="coupon-hint" class="hint">${t("coupon.hint")}</p>
  </details>`;
}
