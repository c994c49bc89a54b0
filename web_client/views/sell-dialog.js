/** Opening a sale: which SKUs, how many of each, after what countdown, held for how long. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatMoney } from "../money.js";
import { holdWords } from "./buy-sheet.js";
import { Dialog } from "./dialog.js";
import { useSpeech } from "./speech.js";

const COUNTDOWNS_S = [0, 3, 5, 10, 30, 60, 300];
const HOLDS_S = [60, 120, 180, 300, 600, 900];
/** A sale closes by itself after so long; 0: when the host closes it. */
const OPEN_S = [0, 60, 180, 300, 600, 1200];
/** A raffle takes entries for so long; 0: first come, first served. */
const ENTRY_S = [0, 15, 30, 60, 120, 300];

/** @param {{product: any, host: import("../console.js").HostConsole, onClose: () => void}} props */
export function SellDialog({ product, host, onClose }) {
  const { t, say, language } = useSpeech();
  const [chosen, choose] = useState(/** @type {string[]} */ (product.skus.map((/** @type {any} */ sku) => sku.sku)));
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState(/** @type {any} */ (null));
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const number = (/** @type {string} */ name) => Number(data.get(name) || 0);
    const lines = chosen.map((sku) => {
      const units = number(`units ${sku}`);
      return units > 0 ? { sku, units } : { sku };
    });
    setBusy(true);
    setRefusal(null);
    try {
      await host.act("open_drop", {
        lines,
        title: product.title.slice(0, 120),
        countdown_s: number("countdown"),
        hold_s: number("hold"),
        ...(number("open") > 0 ? { open_s: number("open") } : {}),
        ...(number("limit") > 0 ? { per_viewer: number("limit") } : {}),
        ...(number("entry") > 0 ? { entry_s: number("entry") } : {}),
      });
      onClose();
    } catch (error) {
      setRefusal(error);
      setBusy(false);
    }
  };
  // A product with one variant has no name for it.
  const named = (/** @type {any} */ sku) => sku.title || product.title;
  const flip = (/** @type {string} */ sku) =>
    choose(chosen.includes(sku) ? chosen.filter((one) => one !== sku) : [...chosen, sku]);
  return html`
    <${Dialog} title=${t("sell.title", { title: product.title })} onClose=${onClose} closeLabel=${t("close")} testid="sell-dialog" busy=${busy}>
      <form onSubmit=${submit} class="sell" data-testid="sell-form">
        <table class="sell-lines">
          <thead>
            <tr><th scope="col">${t("sell.item")}</th><th scope="col">${t("sell.units")}</th></tr>
          </thead>
          <tbody>
            ${product.skus.map(
              (/** @type {any} */ sku) => html`<tr key=${sku.sku}>
                <td>
                  <label class="tick">
                    <input type="checkbox" checked=${chosen.includes(sku.sku)} data-testid=${`sell-sku-${sku.sku}`} onChange=${() => flip(sku.sku)} />
                    <span>${named(sku)} <small>${formatMoney(sku.price, language)}</small></span>
                  </label>
                </td>
                <td>
                  <input
                    class="text-input"
                    type="number"
                    min="1"
                    max="1000000"
                    name=${`units ${sku.sku}`}
                    placeholder=${t("sell.all")}
                    disabled=${!chosen.includes(sku.sku)}
                    aria-label=${t("sell.units_of", { title: named(sku) })}
                    data-testid=${`sell-units-${sku.sku}`}
                  />
                </td>
              </tr>`,
            )}
          </tbody>
        </table>
        <div class="fields">
          <label class="field field-half">
            <span>${t("sell.countdown")}</span>
            <select name="countdown" data-testid="sell-countdown">
              ${COUNTDOWNS_S.map((s) => html`<option value=${s} selected=${s === 5}>${s === 0 ? t("sell.at_once") : holdWords(t, s)}</option>`)}
            </select>
          </label>
          <label class="field field-half">
            <span>${t("sell.hold")}</span>
            <select name="hold" data-testid="sell-hold">
              ${HOLDS_S.map((s) => html`<option value=${s} selected=${s === 180}>${holdWords(t, s)}</option>`)}
            </select>
          </label>
          <label class="field field-half">
            <span>${t("sell.open")}</span>
            <select name="open" data-testid="sell-open">
              ${OPEN_S.map((s) => html`<option value=${s}>${s === 0 ? t("sell.by_hand") : holdWords(t, s)}</option>`)}
            </select>
          </label>
          <label class="field field-half">
            <span>${t("sell.limit")}</span>
            <input type="number" name="limit" min="1" max="99" placeholder=${t("sell.no_limit")} data-testid="sell-limit" />
          </label>
          ${chosen.length === 1 &&
          html`<label class="field">
            <span>${t("sell.mode")}</span>
            <select name="entry" data-testid="sell-entry">
              ${ENTRY_S.map((s) => html`<option value=${s}>${s === 0 ? t("sell.first_come") : t("sell.raffle", { time: holdWords(t, s) })}</option>`)}
            </select>
          </label>`}
          ${refusal && html`<p class="trouble" role="alert" data-testid="sell-trouble">${say(refusal)}</p>`}
          <button type="submit" class="primary" disabled=${busy || chosen.length === 0} data-testid="sell-submit">
            ${t("sell.start")}
          </button>
        </div>
      </form>
    <//>
  `;
}
