/** The light that says whether all numbers of stock agree. The server looks all the time. */

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
  const sentence = t(`stock_light.${found.reason}`, { n: found.count, checked: found.checked });
  const first = found.differences?.[0];
  const more = first ? ` ${first.key}: ${first.found} ≠ ${first.expected}` : "";
  return html`<span
    class=${`light light-${LOOKS[found.light]}`}
    role="status"
    title=${sentence + more}
    data-testid="stock-light"
    data-state=${found.light}
    data-reason=${found.reason}
  >
    <span class="light-dot" aria-hidden="true"></span>${t("stock_light")}<span class="hidden-text">: ${sentence}</span>
    ${found.light === "red" && html`<b>${sentence}</b>`}
  </span>`;
}
