/** One thing at a time, with its refusal kept: what every button that asks the server needs. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { Refusal } from "../refusal.js";
import { useSpeech } from "./speech.js";

/** @returns {{busy: boolean, refusal: Refusal | null, run: (work: () => Promise<unknown>) => Promise<boolean>}} */
export function useWork() {
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const run = async (/** @type {() => Promise<unknown>} */ work) => {
    setBusy(true);
    setRefusal(null);
    try {
      await work();
      return true;
    } catch (error) {
      setRefusal(error instanceof Refusal ? error : new Refusal("unknown"));
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { busy, refusal, run };
}

/** @param {{refusal: Refusal | null, testid?: string, onAgain?: () => void}} props */
export function Trouble({ refusal, testid = "trouble", onAgain }) {
  const { t, say } = useSpeech();
  if (!refusal) return null;
  return html`<p class="trouble" role="alert" data-testid=${testid} data-code=${refusal.code}>
    <span>${say(refusal)}</span>
    ${onAgain && html`<button type="button" class="link-button" onClick=${onAgain}>${t("try_again")}</button>`}
  </p>`;
}
