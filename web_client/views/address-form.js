/**
 * Who buys and where it goes. Kept in this browser for the next time; never a card, that is typed
 * on the provider's page.
 */

import { html, useMemo, useState } from "../vendor/preact-htm/standalone.module.js";
import { countries, likelyCountry } from "../countries.js";
import * as storage from "../storage.js";
import { useSpeech } from "./speech.js";

/** @type {{name: string, type?: string, auto: string, max: number, required?: boolean, half?: boolean, mode?: string}[]} */
const FIELDS = [
  { name: "name", auto: "name", max: 120, required: true },
  { name: "email", type: "email", auto: "email", max: 254, required: true, mode: "email" },
  { name: "phone", type: "tel", auto: "tel", max: 40, mode: "tel" },
  { name: "line1", auto: "address-line1", max: 120, required: true },
  { name: "line2", auto: "address-line2", max: 120 },
  { name: "postcode", auto: "postal-code", max: 20, required: true, half: true },
  { name: "city", auto: "address-level2", max: 120, required: true, half: true },
  { name: "region", auto: "address-level1", max: 120 },
];

/**
 * The body of POST /holds/{rid}/payment.
 * @param {Record<string, string>} values
 */
export function deliveryOf(values) {
  const text = (/** @type {string} */ name) => (values[name] ?? "").trim();
  return {
    name: text("name"),
    email: text("email"),
    phone: text("phone"),
    address: {
      line1: text("line1"),
      line2: text("line2"),
      city: text("city"),
      region: text("region"),
      postcode: text("postcode"),
      country: text("country"),
    },
  };
}

/**
 * @param {{onSubmit: (delivery: any) => void, busy: boolean, label: string, wrongField?: string, children?: any}} props
 */
export function AddressForm({ onSubmit, busy, label, wrongField = "", children }) {
  const { t, language } = useSpeech();
  const [values, setValues] = useState(() => ({
    country: likelyCountry(navigator.languages ?? []),
    ...storage.delivery(),
  }));
  const list = useMemo(() => countries(language), [language]);
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) =>
    setValues((all) => ({ ...all, [name]: event.target.value }));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (busy) return;
    storage.keepDelivery(values);
    onSubmit(deliveryOf(values));
  };
  const wrong = wrongField.split(".").pop();
  return html`
    <form class="address" onSubmit=${submit} data-testid="address-form">
      <h3>${t("address")}</h3>
      <div class="fields">
        ${FIELDS.map(
          (field) => html`<label key=${field.name} class=${field.half ? "field field-half" : "field"}>
            <span>${t(`address.${field.name}`)}${field.required ? "" : html` <small>${t("optional")}</small>`}</span>
            <input
              name=${field.name}
              type=${field.type ?? "text"}
              autocomplete=${field.auto}
              inputmode=${field.mode}
              maxlength=${field.max}
              required=${field.required}
              value=${values[field.name] ?? ""}
              aria-invalid=${wrong === field.name ? "true" : "false"}
              data-testid=${`address-${field.name}`}
              onInput=${set(field.name)}
            />
          </label>`,
        )}
        <label class="field">
          <span>${t("address.country")}</span>
          <select
            name="country"
            autocomplete="country"
            required
            value=${values.country ?? ""}
            data-testid="address-country"
            onChange=${set("country")}
          >
            <option value="">${t("address.choose")}</option>
            ${list.map(
              ([code, name]) => html`<option key=${code} value=${code} selected=${code === values.country}>
                ${name}
              </option>`,
            )}
          </select>
        </label>
      </div>
      <p class="hint">${t("address.no_card")}</p>
      ${children}
      <button type="submit" class="primary" disabled=${busy} data-testid="pay">
        ${busy && html`<span class="spinner" aria-hidden="true"></span>`} ${label}
      </button>
    </form>
  `;
}
