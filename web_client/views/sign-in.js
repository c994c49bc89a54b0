/** Login and password; a one-time link signs in by itself (main-host.js). */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { Refusal } from "../refusal.js";
import { LanguageSwitch, useSpeech } from "./speech.js";

/** @param {{onSignedIn: (who: any) => void, refusal: Refusal | null}} props */
export function SignIn({ onSignedIn, refusal: first }) {
  const { t, say } = useSpeech();
  const [refusal, setRefusal] = useState(first);
  const [busy, setBusy] = useState(false);
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    setBusy(true);
    setRefusal(null);
    try {
      onSignedIn(await api.session({ login: String(data.get("login")), password: String(data.get("password")) }));
    } catch (error) {
      setRefusal(error instanceof Refusal ? error : new Refusal("unknown"));
      setBusy(false);
    }
  };
  return html`
    <main class="sign-in">
      <div class="sign-in-lang"><${LanguageSwitch} /></div>
      <img src="/static/favicon.svg" alt="" width="64" height="64" />
      <h1>${t("host.sign_in.title")}</h1>
      <form class="fields" onSubmit=${submit} data-testid="sign-in">
        <label class="field">
          <span>${t("host.login")}</span>
          <input name="login" autocomplete="username" required data-testid="login" />
        </label>
        <label class="field">
          <span>${t("host.password")}</span>
          <input name="password" type="password" autocomplete="current-password" required data-testid="password" />
        </label>
        ${refusal && html`<p class="trouble" role="alert" data-testid="sign-in-trouble">${say(refusal)}</p>`}
        <button type="submit" class="primary" disabled=${busy} data-testid="sign-in-submit">
          ${t("host.sign_in")}
        </button>
      </form>
      <p class="hint">${t("host.link_hint")}</p>
    </main>
  `;
}
