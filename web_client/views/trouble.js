/** Why a purchase did not happen, as a sentence, with what can be done about it. */

import { html } from "../vendor/preact-htm/standalone.module.js";
import { formatClaim } from "../money.js";
import { useSpeech } from "./speech.js";

/**
 * @param {{press: any, notice: any, onAgain: () => void, onDismiss: () => void}} props
 */
export function Trouble({ press, notice, onAgain, onDismiss }) {
  const { t, say, language } = useSpeech();
  const refused = press?.state === "refused" || press?.state === "undecided" ? press : null;
  if (!refused && !notice) return null;
  // The one notice that is good news must not look like a refusal.
  const good = !refused && notice.key === "wait.offered";
  // Of a press this is said when it was answered so late that the unit went back meanwhile.
  const takenBack = refused?.refusal?.code === "hold_ended";
  const claim = formatClaim(refused?.refusal?.details.receipt, language);
  return html`
    <div class=${`trouble ${good ? "trouble-good" : ""}`} role="alert" data-testid="trouble" data-code=${refused?.refusal?.code ?? ""}>
      <span>${refused ? (takenBack ? t("buy.taken_back") : say(refused.refusal)) : t(notice.key, notice.values)}${claim &&
      html` <small data-testid="claim">${t("buy.claim", { claim })}</small>`}</span>
      ${refused?.state === "undecided" &&
      html`<button type="button" class="link-button" data-testid="buy-again" onClick=${onAgain}>
        ${t("buy.again")}
      </button>`}
      <button type="button" class="link-button" data-testid="trouble-dismiss" onClick=${onDismiss}>
        ${t("dismiss")}
      </button>
    </div>
  `;
}
