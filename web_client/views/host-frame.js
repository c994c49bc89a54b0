/** What the host's pages have in common: the bar above, and the way between them. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { LanguageSwitch, useSpeech } from "./speech.js";

/** Pages by the name in the address; "" is the list of shows. */
export const PAGES = Object.freeze(["", "orders", "office", "webhooks"]);

/** @param {{who: any, page: string, onSignOut: () => void, children?: any}} props */
export function HostFrame({ who, page, onSignOut, children }) {
  const { t } = useSpeech();
  return html`
    <main class="host-home">
      <header class="host-bar">
        <span class="brand"><img src="/static/favicon.svg" alt="" width="32" height="32" /><span>Vitrine</span></span>
        <nav class="host-nav" aria-label=${t("host.pages")}>
          ${PAGES.map(
            (name) => html`<a
              key=${name}
              href=${`#${name}`}
              class="host-nav-link"
              aria-current=${name === page ? "page" : undefined}
              data-testid=${`go-${name || "shows"}`}
            >
              ${t(name ? `host.page.${name}` : "host.shows")}
            </a>`,
          )}
        </nav>
        <span class="grow"></span>
        <span class="who">${who.name}</span>
        <${LanguageSwitch} />
        <button type="button" class="chip-button" data-testid="sign-out" onClick=${() => onSignOut()}>
          ${t("host.sign_out")}
        </button>
      </header>
      <h1 class="hidden-text">${t(page ? `host.page.${page}` : "host.shows")}</h1>
      ${children}
    </main>
  `;
}
