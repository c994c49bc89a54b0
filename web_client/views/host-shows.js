/** The host's first page: shows, a new show, the product file. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { formatDate } from "../money.js";
import { Refusal } from "../refusal.js";
import { ImportForm } from "./import-form.js";
import { useSpeech } from "./speech.js";
import { StateBadge } from "./top-bar.js";

/** @param {{who: any, onOpen: (show: string) => void, onFailed: (refusal: Refusal) => void}} props `onFailed`: the sign-in has ended */
export function HostShows({ who, onOpen, onFailed }) {
  const { t, say, language } = useSpeech();
  const [shows, setShows] = useState(/** @type {any[] | null} */ (null));
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const [busy, setBusy] = useState(false);
  const failed = (/** @type {unknown} */ error) => {
    const wrong = error instanceof Refusal ? error : new Refusal("unknown");
    if (wrong.status === 401) onFailed(wrong);
    else setRefusal(wrong);
  };
  const look = () => api.shows(who.token).then(setShows, failed);
  useEffect(() => void look(), []);
  const create = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    const data = new FormData(form);
    const video = String(data.get("video")).trim();
    setBusy(true);
    setRefusal(null);
    try {
      const made = await api.createShow(who.token, {
        title: String(data.get("title")).trim(),
        ...(video ? { video } : {}),
      });
      onOpen(made.id);
    } catch (error) {
      failed(error);
    }
    setBusy(false);
  };
  return html`
      ${refusal && html`<p class="trouble host-trouble" role="alert" data-testid="host-trouble">${say(refusal)}</p>`}
      <div class="host-home-grid">
        <section class="panel">
          <h2>${t("host.shows")}</h2>
          ${shows?.length === 0 && html`<p class="empty">${t("host.no_shows")}</p>`}
          <ul class="host-shows" data-testid="host-shows">
            ${(shows ?? []).map(
              (show) => html`<li key=${show.id}>
                <button type="button" class="host-show" data-testid="host-show" data-show=${show.id} onClick=${() => onOpen(show.id)}>
                  <span class="grow">
                    <b>${show.title}</b>
                    ${show.started_at && html`<small>${formatDate(show.started_at, language)}</small>`}
                  </span>
                  <${StateBadge} state=${show.state} />
                </button>
              </li>`,
            )}
          </ul>
        </section>
        <div class="stack">
          <section class="panel">
            <h2>${t("host.new_show")}</h2>
            <form class="fields" onSubmit=${create} data-testid="new-show">
              <label class="field">
                <span>${t("host.show_title")}</span>
                <input name="title" required maxlength="160" data-testid="new-show-title" />
              </label>
              <label class="field">
                <span>${t("host.show_video")} <small>${t("optional")}</small></span>
                <input name="video" inputmode="url" maxlength="2000" placeholder="https://…/live.m3u8" data-testid="new-show-video" />
              </label>
              <button type="submit" class="primary" disabled=${busy} data-testid="new-show-submit">
                ${t("host.create_show")}
              </button>
            </form>
          </section>
          <${ImportForm} who=${who} onFailed=${failed} />
        </div>
      </div>
  `;
}
