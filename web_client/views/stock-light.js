/**
 * The light that says whether all numbers of stock agree. The server looks all the time. The verdict
 * is a word as well as a colour, and its reason opens by itself when something is wrong.
 */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { useSpeech } from "./speech.js";

/** How often the verdict is asked for, milliseconds. */
const LOOK_MS = 10_000;
/** The colours of `light` are those of the console's own light. */
const LOOKS = /** @type {Record<string, string>} */ ({ green: "on", amber: "busy", red: "off" });

/** @param {{token: string}} props */
export function StockLight({ token }) {
  const { t } = useSpeech();
  const [found, setFound] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let here = true;
    const look = () =>
      api.stockCheck(token).then(
        (verdict) => here && setFound(verdict),
        () => here && setFound({ light: "amber", reason: "away", count: 0, checked: 0 }),
      );
    void look();
    const timer = setInterval(look, LOOK_MS);
    return () => {
      here = false;
      clearInterval(timer);
    };
  }, [token]);
  if (!found) return null;
  const first = found.differences?.[0];
  return html`<details
    class=${`stock-light light-${LOOKS[found.light]}`}
    open=${found.light === "red"}
    data-testid="stock-light"
    data-state=${found.light}
    data-reason=${found.reason}
  >
    <summary class="light"><span class="light-dot" aria-hidden="true"></span>${t(`stock_light.${found.light}`)}</summary>
    <div class="stock-why" role="status" data-testid="stock-why">
      ${t(`stock_light.${found.reason}`, { n: found.count, checked: found.checked })}
      ${first && html`<small>${first.key}: ${first.found} ≠ ${first.expected}</small>`}
    </div>
  </details>`;
}
