/** Says when the line is down and what happens next. Nothing is shown while all is well. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import { useTicks } from "../observable.js";
import { useSpeech } from "./speech.js";

/** A cut that heals faster than this is nobody's business, milliseconds. */
const QUIET_MS = 700;

/**
 * @param {{status: import("../connection.js").Status, welcomed: boolean, onAgain: () => void}} props
 */
export function ConnectionBanner({ status, welcomed, onAgain }) {
  const { t, say } = useSpeech();
  const down = status.state !== "connected";
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!down) {
      setShown(false);
      return undefined;
    }
    const timer = setTimeout(() => setShown(true), QUIET_MS);
    return () => clearTimeout(timer);
  }, [down]);
  useTicks(shown && status.retryAt ? 500 : null);
  if (!shown) return null;
  const over = status.closedWith !== null || status.refused !== null;
  const waitS = status.retryAt ? Math.ceil((status.retryAt - Date.now()) / 1000) : 0;
  const text = status.refused
    ? say(status.refused)
    : status.closedWith !== null
      ? t(status.closedWith === 4502 ? "line.reload" : status.closedWith === 4501 ? "line.signed_out" : "line.over")
      : waitS > 1
        ? t("line.retry_in", { n: waitS })
        : t(welcomed ? "line.again" : "line.first");
  return html`
    <div
      class=${`banner ${over ? "banner-over" : ""}`}
      role="status"
      data-testid="connection-banner"
      data-state=${status.state}
    >
      ${!over && html`<span class="spinner" aria-hidden="true"></span>`}
      <span>${text}</span>
      ${(over || waitS > 1) &&
      status.refused?.code !== "unknown_show" &&
      html`<button type="button" class="link-button" data-testid="connection-again" onClick=${onAgain}>
        ${t(over ? "line.reload_button" : "line.now_button")}
      </button>`}
      ${status.refused?.code === "unknown_show" && html`<a class="link-button" href="/">${t("to_shows")}</a>`}
    </div>
  `;
}
