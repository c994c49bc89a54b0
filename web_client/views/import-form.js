/** A shop's product file: chosen, sent, and told row by row what became of it. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { importReport, refusedReport } from "../products.js";
import { Refusal } from "../refusal.js";
import { useSpeech } from "./speech.js";

/** Rows shown; a file may have thousands of wrong ones. */
const ROWS_SHOWN = 50;

/** @param {{who: any, onFailed: (error: unknown) => void, onDone?: () => void}} props */
export function ImportForm({ who, onFailed, onDone }) {
  const { t, say } = useSpeech();
  const [busy, setBusy] = useState(false);
  const [report, setReport] = useState(/** @type {any} */ (null));
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const [currency, setCurrency] = useState("");
  const file = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    api.shop(who.token).then(
      (shop) => setCurrency((now) => now || shop.currency),
      () => {},
    );
  }, []);
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const chosen = file.current?.files?.[0];
    if (!chosen) return;
    setBusy(true);
    setReport(null);
    setRefusal(null);
    try {
      setReport(importReport(await api.importProducts(who.token, chosen, currency.toUpperCase())));
      onDone?.();
    } catch (error) {
      const wrong = error instanceof Refusal ? error : new Refusal("unknown");
      if (wrong.status === 401) onFailed(wrong);
      setRefusal(wrong);
      setReport(refusedReport(wrong.details));
    }
    setBusy(false);
  };
  return html`
    <section class="panel">
      <h2>${t("import.title")}</h2>
      <form class="fields" onSubmit=${send} data-testid="import">
        <label class="field">
          <span>${t("import.file")}</span>
          <input type="file" accept=".csv,text/csv" required ref=${file} data-testid="import-file" />
        </label>
        <label class="field field-half">
          <span>${t("import.currency")}</span>
          <input
            value=${currency}
            required
            pattern="[A-Za-z]{3}"
            maxlength="3"
            autocapitalize="characters"
            placeholder="EUR"
            data-testid="import-currency"
            onInput=${(/** @type {any} */ event) => setCurrency(event.target.value)}
          />
        </label>
        <div class="field field-half field-end">
          <button type="submit" class="primary" disabled=${busy} data-testid="import-submit">
            ${busy && html`<span class="spinner" aria-hidden="true"></span>`} ${t("import.send")}
          </button>
        </div>
      </form>
      ${refusal && html`<p class="trouble" role="alert" data-testid="import-trouble">${say(refusal)}</p>`}
      ${report &&
      html`<div class="report" role="status" data-testid="import-report">
        ${report.counts.length > 0 &&
        html`<p class="report-counts">
          ${report.counts.map(
            (/** @type {[string, number]} */ [name, n]) => html`<span key=${name} data-testid=${`import-${name}`} data-n=${n}>
              ${t(`import.${name}`, { n })}
            </span>`,
          )}
        </p>`}
        ${report.rows.length > 0 &&
        html`<ul class="report-rows">
          ${report.rows.slice(0, ROWS_SHOWN).map(
            (/** @type {any} */ row, /** @type {number} */ index) => html`<li key=${index} class=${`report-${row.outcome}`}>
              <small>${t("import.row", { row: String(row.line) })}</small>
              <b>${row.what}</b> <span>${row.text || t(`import.outcome.${row.outcome}`)}</span>
            </li>`,
          )}
        </ul>`}
      </div>`}
    </section>
  `;
}
