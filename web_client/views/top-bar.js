/** Above the picture: whose show, is it live, how many watch; one's own orders, the language. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatCount } from "../money.js";
import { Icon } from "./icon.js";
import { LanguageSwitch, useSpeech } from "./speech.js";

/** @param {{state: string | undefined}} props */
export function StateBadge({ state }) {
  const { t } = useSpeech();
  if (!state) return null;
  return html`<span class=${`badge badge-${state}`} data-testid="show-state" data-state=${state}>
    ${t(`state.${state}`)}
  </span>`;
}

/** @param {{show: any, viewers: any, bag: number, onBag: () => void}} props */
export function TopBar({ show, viewers, bag, onBag }) {
  const { t, language } = useSpeech();
  return html`
    <header class="top-bar">
      <div class="top-bar-left">
        <h1 class="show-title" data-testid="show-title">${show?.title ?? ""}</h1>
        <div class="top-bar-facts">
          <${StateBadge} state=${show?.state} />
          ${viewers &&
          html`<span class="viewers" data-testid="viewers" title=${t("viewers.peak", { n: viewers.peak })}>
            <${Icon} name="eye" />
            <span aria-hidden="true">${formatCount(viewers.now, language)}</span>
            <span class="hidden-text">${t("viewers", { n: viewers.now })}</span>
          </span>`}
        </div>
      </div>
      <div class="top-bar-right">
        <${LanguageSwitch} />
        <button
          type="button"
          class="round-button"
          aria-label=${bag > 0 ? t("purchases.open", { n: bag }) : t("purchases")}
          data-testid="purchases-button"
          onClick=${onBag}
        >
          <${Icon} name="bag" />
          ${bag > 0 && html`<span class="dot" aria-hidden="true">${bag}</span>`}
        </button>
      </div>
    </header>
  `;
}
