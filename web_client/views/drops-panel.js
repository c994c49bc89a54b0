/** Sales of the show as the host watches them: countdown, units left, close. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown } from "../money.js";
import { useTicks } from "../observable.js";
import { drops, phase } from "../offers.js";
import { Picture } from "./picture.js";
import { DiscountLine } from "./discount-line.js";
import { ClaimsLinks, LimitedViewers } from "./claims-links.js";
import { Left } from "./product-card.js";
import { useSpeech } from "./speech.js";

/** Closed sales that stay in sight. */
const CLOSED_SHOWN = 3;

/** @param {{host: import("../console.js").HostConsole, room: import("../store.js").Room, disabled: boolean}} props */
export function DropsPanel({ host, room, disabled }) {
  const { t } = useSpeech();
  useTicks(500);
  const now = host.now();
  const all = drops(room, now);
  const shown = [
    ...all.filter((drop) => phase(drop, now) !== "closed"),
    ...all.filter((drop) => phase(drop, now) === "closed").slice(0, CLOSED_SHOWN),
  ];
  return html`
    <section class="panel" aria-label=${t("drops")}>
      <header class="panel-head"><h2>${t("drops")}</h2></header>
      <${LimitedViewers} token=${host.who.token} />
      ${shown.length === 0 && html`<p class="empty">${t("drops.empty")}</p>`}
      <ul class="drops" data-testid="drops">
        ${shown.map((drop) => {
          const at = phase(drop, now);
          return html`<li key=${drop.id} class=${`drop drop-${at}`} data-testid="drop" data-drop=${drop.id} data-state=${at}>
            <${Picture} src=${drop.lines[0]?.image} class="item-picture" />
            <div class="drop-words">
              <b>${drop.title || drop.lines[0]?.title}</b>
              <p class="drop-state">
                <span class=${`phase phase-${at}`}>${t(`drop.${at}`)}</span>
                ${at === "opens" && html`<span class="big-time" data-testid="drop-countdown">${formatCountdown(drop.opens_at - now)}</span>`}
                ${at === "raffle" && html`<span class="big-time">${formatCountdown(Math.max(0, drop.raffle.draws_at - now))}</span>`}
                ${at === "open" && drop.closes_at && html`<span>${t("buy.closes_in", { time: formatCountdown(drop.closes_at - now) })}</span>`}
              </p>
              <ul class="drop-lines">
                ${drop.lines.map(
                  (/** @type {any} */ line) => html`<li key=${line.sku} data-sku=${line.sku}>
                    <span>${drop.lines.length > 1 ? line.title : ""}${line.units ? html` <small>${t("drop.of", { n: line.units })}</small>` : ""}</span>
                    <${Left} left=${room.states[`stock:${line.sku}`]?.[1] ?? null} phase=${at} testid="drop-left" />
                    ${room.states[`waiting:${line.sku}`]?.[1] > 0 &&
                    html`<small data-testid="drop-waiting">${t("drop.waiting", { n: room.states[`waiting:${line.sku}`][1] })}</small>`}
                  </li>`,
                )}
              </ul>
              <${DiscountLine} token=${host.who.token} drop=${drop} editable=${at !== "closed" && !disabled} />
            </div>
            <${ClaimsLinks} token=${host.who.token} drop=${drop.id} />
            ${at !== "closed" &&
            html`<button
              type="button"
              class="pill"
              disabled=${disabled}
              data-testid="close-drop"
              onClick=${() => host.act("close_drop", { drop: drop.id }).catch(() => {})}
            >
              ${t("drop.close")}
            </button>`}
          </li>`;
        })}
      </ul>
    </section>
  `;
}
