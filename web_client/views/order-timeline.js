/** Everything that happened to an order, in words; the bookkeeping behind it on request. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { formatClaim, formatMoment, formatMoney } from "../money.js";
import { happenings, spoken } from "../order-words.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @param {{token: string, file: any}} props */
export function OrderTimeline({ token, file }) {
  const { t, texts, language } = useSpeech();
  const [events, setEvents] = useState(/** @type {any[]} */ ([]));
  const [books, showBooks] = useState(false);
  const work = useWork();
  const look = () => work.run(async () => setEvents(await desk.timeline(token, file.order.id)));
  useEffect(() => void look(), [file]);
  const money = (/** @type {number} */ amount) => formatMoney({ amount, currency: file.order.total.currency }, language);
  const words = (/** @type {any} */ one) => {
    const key = `event.${one.kind}`;
    const values = {
      ...one.values,
      money: one.amount === null ? "" : money(one.amount),
      n: Number(one.values.count || one.values.units || 1),
      claim: formatClaim(one.values.claim, language),
    };
    return t(texts[key] || texts[`${key}_other`] ? key : "event.other", values);
  };
  return html`<section aria-label=${t("desk.timeline")}>
    <header class="panel-head">
      <h3>${t("desk.timeline")}</h3>
      <label class="tick tick-small">
        <input type="checkbox" checked=${books} data-testid="timeline-books" onChange=${() => showBooks(!books)} />
        <span>${t("desk.books")}</span>
      </label>
    </header>
    <${Trouble} refusal=${work.refusal} onAgain=${look} />
    <ol class="timeline" data-testid="timeline">
      ${happenings(events, file)
        .filter((one) => books || !one.books)
        .map(
          (one, at) => html`<li key=${at} class=${one.books ? "timeline-books" : ""} data-kind=${one.kind}>
            <time>${formatMoment(one.at, language)}</time>
            <span>
              ${words(one)}
              ${one.values.postings && html`<small class="postings">${posted(one.values.postings, money, t, texts)}</small>`}
            </span>
          </li>`,
        )}
    </ol>
  </section>`;
}

/**
 * @param {any} postings minor units by account
 * @param {(amount: number) => string} money
 * @param {import("../i18n.js").Translate} t
 * @param {import("../i18n.js").Texts} texts
 */
function posted(postings, money, t, texts) {
  const name = (/** @type {string} */ account) => (texts[`account.${account}`] ? t(`account.${account}`) : account);
  return Object.entries(postings)
    .map(([account, amount]) => `${name(account)} ${money(spoken(account, Number(amount)))}`)
    .join(" · ");
}
