/** What one is called in the chat. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { Refusal } from "../refusal.js";
import { Dialog } from "./dialog.js";
import { useSpeech } from "./speech.js";

/** As the server: live/identity.py. */
const NAME_CHARS_MAX = 40;

/** @param {{name: string, locked: boolean, onSave: (name: string) => Promise<void>, onClose: () => void}} props */
export function NameSheet({ name, locked, onSave, onClose }) {
  const { t, say } = useSpeech();
  const [text, setText] = useState(name);
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const save = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!text.trim() || busy) return;
    setBusy(true);
    try {
      await onSave(text.trim());
      onClose();
    } catch (error) {
      setRefusal(error instanceof Refusal ? error : new Refusal("unknown"));
      setBusy(false);
    }
  };
  return html`
    <${Dialog} title=${t("name.title")} onClose=${onClose} closeLabel=${t("close")} testid="name-sheet">
      ${locked
        ? html`<p class="hint">${t("name.locked")}</p>`
        : html`<form onSubmit=${save} class="fields">
            <label class="field">
              <span>${t("name.label")}</span>
              <input
                type="text"
                autocomplete="nickname"
                maxlength=${NAME_CHARS_MAX}
                required
                value=${text}
                data-testid="name-input"
                onInput=${(/** @type {any} */ event) => setText(event.target.value)}
              />
            </label>
            ${refusal && html`<p class="trouble" role="alert">${say(refusal)}</p>`}
            <button type="submit" class="primary" disabled=${busy} data-testid="name-save">${t("name.save")}</button>
          </form>`}
    <//>
  `;
}
