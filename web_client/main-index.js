/** The list of shows at /: what is live, what comes, what was. */

import * as api from "./api.js";
import { speak } from "./i18n.js";
import { html, render, useEffect, useState } from "./vendor/preact-htm/standalone.module.js";
import { formatDate } from "./money.js";
import { Refusal } from "./refusal.js";
import { LanguageSwitch, SpeechProvider, useSpeech } from "./views/speech.js";
import { StateBadge } from "./views/top-bar.js";

/** Pace of looking whether something has begun, milliseconds. */
const LOOK_MS = 15_000;
const ORDER = ["live", "paused", "scheduled", "ended"];

function ListPage() {
  const { t, say, language } = useSpeech();
  const [shows, setShows] = useState(/** @type {any[] | null} */ (null));
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const look = async () => {
    try {
      setShows(await api.shows());
      setRefusal(null);
    } catch (error) {
      setRefusal(error instanceof Refusal ? error : new Refusal("unknown"));
    }
  };
  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  const sorted = [...(shows ?? [])].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
  return html`
    <main class="list-page">
      <header class="list-head">
        <span class="brand"><img src="/static/favicon.svg" alt="" width="32" height="32" />Vitrine</span>
        <${LanguageSwitch} />
      </header>
      <h1>${t("list.title")}</h1>
      ${refusal &&
      html`<p class="trouble" role="alert">
        <span>${say(refusal)}</span>
        <button type="button" class="link-button" onClick=${look}>${t("try_again")}</button>
      </p>`}
      ${shows?.length === 0 && html`<p class="empty">${t("list.empty")}</p>`}
      <ul class="shows" data-testid="shows">
        ${sorted.map(
          (show, index) => html`<li key=${show.id}>
            <a class=${`show show-${show.state} show-hue-${index % 4}`} href=${`/show/${encodeURIComponent(show.id)}`} data-testid="show-link">
              <svg class="show-art" viewBox="0 0 200 200" aria-hidden="true">
                <path class="arch" d="M48 152V92a52 52 0 0 1 104 0v60z" />
                <path class="arch-line" d="M30 152h140M48 152V92a52 52 0 0 1 104 0v60" />
                <circle class="arch-dot" cx="100" cy="124" r="20" />
              </svg>
              <span class="show-words">
                <${StateBadge} state=${show.state} />
                <span class="show-name">${show.title}</span>
                ${show.state === "scheduled" &&
                show.starts_at &&
                html`<span class="show-time">${formatDate(show.starts_at, language)}</span>`}
              </span>
            </a>
          </li>`,
        )}
      </ul>
      <footer class="list-foot"><a href="/host">${t("list.host")}</a></footer>
    </main>
  `;
}

const speech = await speak();
render(
  html`<${SpeechProvider} first=${speech}><${ListPage} /><//>`,
  /** @type {HTMLElement} */ (document.getElementById("app")),
);
