/** Where nothing can be bought: the wait list or the raffle, and one's place in it. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown } from "../money.js";
import { phase } from "../offers.js";
import { LOOK_MS } from "../waits.js";
import { useSpeech } from "./speech.js";

/**
 * @param {{item: import("../offers.js").Item, quantity?: number, count: number | null, now: () => number,
 *   viewer: import("../viewer.js").Viewer}} props
 *   `count`: how many wait for it, as the room knows
 */
export function WaitBox({ item, quantity = 1, count, now, viewer }) {
  const { t } = useSpeech();
  const [busy, setBusy] = useState(false);
  const entry = viewer.waits.of(item.drop.id, item.sku);
  useEffect(() => {
    if (!entry) return undefined;
    const timer = setTimeout(() => void viewer.waits.look(entry), LOOK_MS * (1 + Math.random()));
    return () => clearTimeout(timer);
  }, [entry?.rid, count]);
  const run = (/** @type {Promise<any>} */ work) => {
    setBusy(true);
    void work.catch(() => {}).finally(() => setBusy(false));
  };
  const raffle = phase(item.drop, now()) === "raffle" ? item.drop.raffle : null;
  const left = raffle ? raffle.draws_at - now() : 0;
  if (!entry) {
    return html`<button
      type="button"
      class="reminder wait"
      disabled=${busy || (raffle && left <= 0)}
      data-testid="wait"
      onClick=${() => run(viewer.waits.join(item.drop.id, item.sku, quantity))}
    >
      <span>
        ${raffle
          ? t("raffle.explained", { time: formatCountdown(Math.max(0, left)) })
          : count
            ? t("wait.others", { n: count })
            : t("wait.explained")}
      </span>
      <b>${t(raffle ? "raffle.enter" : "wait.join")}</b>
    </button>`;
  }
  return html`<div class="reminder wait" role="status" data-testid="waiting" data-position=${entry.position}>
    <span>
      ${entry.state === "entered"
        ? t("raffle.entered", { time: formatCountdown(Math.max(0, left)) })
        : entry.position === 1
          ? t("wait.next")
          : t("wait.place", { n: entry.position })}
    </span>
    <button
      type="button"
      class="link-button"
      disabled=${busy}
      data-testid="stop-waiting"
      onClick=${() => run(viewer.waits.leave(entry.rid))}
    >
      ${t(entry.state === "entered" ? "raffle.leave" : "wait.leave")}
    </button>
  </div>`;
}
