/**
 * Who pressed when, who won, why not: the claims of a sale as a file, and whether their order holds.
 * And how many viewers have shorter holds, because theirs run out unpaid.
 */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { save as saveFile } from "../save.js";
import { useSpeech } from "./speech.js";

/** Pace of asking who is limited, milliseconds. */
const LIMITED_MS = 30_000;

/** @param {{token: string, drop: string}} props */
export function ClaimsLinks({ token, drop }) {
  const { t, say } = useSpeech();
  const [busy, setBusy] = useState(false);
  const [report, setReport] = useState(/** @type {any} */ (null));
  const [refusal, setRefusal] = useState(/** @type {any} */ (null));
  const attempt = async (/** @type {() => Promise<void>} */ work) => {
    setBusy(true);
    setRefusal(null);
    await work().catch(setRefusal);
    setBusy(false);
  };
  const save = () =>
    attempt(async () => {
      saveFile(await api.claimsFile(token, drop), `claims-${drop}.csv`);
    });
  const check = () => attempt(async () => setReport(await api.checkClaims(token, drop)));
  return html`<div class="drop-claims">
    <button type="button" class="link-button" disabled=${busy} data-testid="claims-file" onClick=${save}>
      ${t("drop.claims")}
    </button>
    <button type="button" class="link-button" disabled=${busy} data-testid="claims-check" onClick=${check}>
      ${t("drop.claims_check")}
    </button>
    ${refusal && html`<small role="alert">${say(refusal)}</small>`}
    ${report &&
    html`<small role="status" data-testid="claims-report" data-ok=${report.ok}>
      ${report.ok
        ? t("drop.claims_ok", { claims: report.claims, winners: report.winners, flagged: report.flagged })
        : t("drop.claims_wrong", { text: report.findings[0]?.text ?? "" })}
      ${report.missing > 0 && ` ${t("drop.claims_missing", { missing: report.missing })}`}
    </small>`}
  </div>`;
}

/** @param {{token: string}} props */
export function LimitedViewers({ token }) {
  const { t } = useSpeech();
  const [count, setCount] = useState(0);
  useEffect(() => {
    const look = () => api.limitedViewers(token).then((found) => setCount(found.length), () => {});
    void look();
    const timer = setInterval(look, LIMITED_MS);
    return () => clearInterval(timer);
  }, [token]);
  if (count === 0) return null;
  return html`<p class="hint" data-testid="limited-viewers">${t("drops.limited", { n: count })}</p>`;
}
