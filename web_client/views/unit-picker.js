/** How many units of each line, between none and all that an action may take. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/**
 * @param {{lines: {position: number, title: string, sku: string, most: number}[], chosen: Record<number, number>,
 *   onChange: (chosen: Record<number, number>) => void}} props
 */
export function UnitPicker({ lines, chosen, onChange }) {
  const { t } = useSpeech();
  const set = (/** @type {any} */ line, /** @type {number} */ n) =>
    onChange({ ...chosen, [line.position]: Math.max(0, Math.min(line.most, n)) });
  return html`<ul class="picker" data-testid="unit-picker">
    ${lines.map((line) => {
      const n = chosen[line.position] ?? 0;
      return html`<li key=${line.position} class="picker-row">
        <span class="picker-words">${line.title || line.sku} <small>${t("picker.of", { n: line.most })}</small></span>
        <span class="stepper">
          <button type="button" aria-label=${t("picker.less", { title: line.title })} disabled=${n <= 0} data-testid=${`less-${line.position}`} onClick=${() => set(line, n - 1)}>
            <${Icon} name="minus" />
          </button>
          <output aria-live="polite" data-testid=${`picked-${line.position}`}>${n}</output>
          <button type="button" aria-label=${t("picker.more", { title: line.title })} disabled=${n >= line.most} data-testid=${`more-${line.position}`} onClick=${() => set(line, n + 1)}>
            <${Icon} name="plus" />
          </button>
        </span>
      </li>`;
    })}
  </ul>`;
}

/**
 * All units of all lines.
 * @param {{position: number, most: number}[]} lines
 * @returns {Record<number, number>}
 */
export const everything = (lines) => Object.fromEntries(lines.map((line) => [line.position, line.most]));
