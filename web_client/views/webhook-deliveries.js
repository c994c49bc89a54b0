/** What was sent to one endpoint, newest first: state, answer, body, and sending it again. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as hooks from "../api-webhooks.js";
import { formatMoment } from "../money.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

const STATES = ["", "pending", "delivered", "dead"];

/** @param {{token: string, endpoint: any}} props another object looks again: a failed try changes no number of it */
export function Deliveries({ token, endpoint }) {
  const { t, texts, language } = useSpeech();
  const [state, setState] = useState("");
  const [page, setPage] = useState(/** @type {any} */ (null));
  const load = useWork();
  const work = useWork();
  const look = (/** @type {number | null} */ after) =>
    load.run(async () => {
      const found = await hooks.deliveries(token, endpoint.id, state, after);
      setPage((/** @type {any} */ now) => (after === null ? renewed(found, now) : { ...found, deliveries: [...now.deliveries, ...found.deliveries] }));
    });
  useEffect(() => void look(null), [state, endpoint]);
  const again = (/** @type {any} */ one) =>
    work.run(async () => {
      await hooks.replay(token, endpoint.id, one.event);
      await look(null);
    });
  return html`<div class="deliveries" data-testid="deliveries">
    <label class="filter">
      <span class="hidden-text">${t("desk.state")}</span>
      <select class="text-input" data-testid="deliveries-state" onChange=${(/** @type {any} */ event) => (setPage(null), setState(event.target.value))}>
        ${STATES.map((name) => html`<option key=${name} value=${name} selected=${name === state}>${t(name ? `hooks.state.${name}` : "desk.any_state")}</option>`)}
      </select>
    </label>
    <${Trouble} refusal=${work.refusal ?? load.refusal} />
    ${page?.deliveries.length === 0 && html`<p class="empty">${t("hooks.none_sent")}</p>`}
    <ul>
      ${(page?.deliveries ?? []).map(
        (/** @type {any} */ one) => html`<li key=${one.event} class="delivery" data-testid="delivery" data-state=${one.state} data-type=${one.type}>
          <details>
            <summary>
              <b class=${`hook-state-${one.state}`}>${t(`hooks.state.${one.state}`)}</b>
              <span>${texts[`hooks.type.${one.type}`] ? t(`hooks.type.${one.type}`) : one.type}</span>
              <small>${formatMoment(one.created_at, language)} · ${t("hooks.tries", { n: one.tries })}${one.answer ? ` · ${one.answer}` : ""}</small>
              ${one.next_at && one.tries > 0 && html`<small>${t("hooks.next", { time: formatMoment(one.next_at, language) })}</small>`}
            </summary>
            <pre data-testid="delivery-body" tabindex="0">${pretty(one.body)}</pre>
          </details>
          <button type="button" class="link-button" disabled=${work.busy} data-testid="delivery-replay" onClick=${() => again(one)}>${t("hooks.replay")}</button>
        </li>`,
      )}
    </ul>
    ${page?.next && html`<button type="button" class="quiet" disabled=${load.busy} onClick=${() => look(page.next)}>${t("catalogue.more")}</button>`}
  </div>`;
}

/**
 * The newest page anew, with the older ones that were asked for before.
 * @param {any} first
 * @param {any} now
 */
function renewed(first, now) {
  const last = first.deliveries.at(-1)?.event;
  const older = last === undefined ? [] : (now?.deliveries ?? []).filter((/** @type {any} */ one) => one.event < last);
  return older.length > 0 ? { deliveries: [...first.deliveries, ...older], next: now.next } : first;
}

/** @param {string} body */
function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}
