/** A countdown that can be seen: a ring that empties, with the time in it. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown } from "../money.js";
import { useTicks } from "../observable.js";

const RADIUS = 26;
const ROUND = 2 * Math.PI * RADIUS;
/** From here on the ring is urgent, milliseconds. */
const URGENT_MS = 30_000;

/**
 * @param {{untilMs: number, totalMs: number, now: () => number, label: string}} props
 */
export function Ring({ untilMs, totalMs, now, label }) {
  useTicks(250);
  const leftMs = Math.max(0, untilMs - now());
  const share = Math.max(0, Math.min(1, leftMs / Math.max(1, totalMs)));
  return html`
    <div
      class=${`ring ${leftMs < URGENT_MS ? "ring-urgent" : ""}`}
      role="timer"
      aria-label=${label}
      data-testid="hold-countdown"
    >
      <svg viewBox="0 0 60 60" aria-hidden="true">
        <circle class="ring-track" cx="30" cy="30" r=${RADIUS} />
        <circle
          class="ring-left"
          cx="30"
          cy="30"
          r=${RADIUS}
          stroke-dasharray=${ROUND}
          stroke-dashoffset=${ROUND * (1 - share)}
        />
      </svg>
      <span>${formatCountdown(leftMs)}</span>
    </div>
  `;
}
