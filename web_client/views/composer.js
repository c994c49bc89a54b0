/** Where one types: a comment, one's name, a like. Enter sends. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import { COMMENT_CHARS_MAX } from "../protocol.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/** The count of what is left is shown from here on, characters. */
const COUNT_FROM = 240;

/**
 * @param {{onSend: (text: string) => void, disabled?: boolean, reason?: string, children?: any,
 *   draft?: {text: string} | null}} props `draft`: text that comes back to be edited
 */
export function Composer({ onSend, disabled = false, reason = "", children, draft = null }) {
  const { t } = useSpeech();
  const [text, setText] = useState("");
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    if (!draft) return;
    setText(draft.text);
    input.current?.focus();
  }, [draft]);
  const length = [...text.trim()].length;
  const left = COMMENT_CHARS_MAX - length;
  const ready = length > 0 && left >= 0 && !disabled;
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!ready) return;
    onSend(text.trim());
    setText("");
    input.current?.focus();
  };
  return html`
    <form class="composer" onSubmit=${send} data-testid="composer">
      <div class="composer-field">
        <input
          ref=${input}
          type="text"
          value=${text}
          placeholder=${disabled && reason ? reason : t("chat.placeholder")}
          aria-label=${t("chat.placeholder")}
          aria-invalid=${left < 0 ? "true" : "false"}
          autocomplete="off"
          enterkeyhint="send"
          disabled=${disabled}
          data-testid="comment-input"
          onInput=${(/** @type {any} */ event) => setText(event.target.value)}
        />
        ${length > COUNT_FROM &&
        html`<span class=${`count ${left < 0 ? "count-over" : ""}`} aria-live="polite">${left}</span>`}
        <button
          type="submit"
          class=${`send-button ${ready ? "send-ready" : ""}`}
          disabled=${!ready}
          aria-label=${t("chat.send")}
          data-testid="comment-send"
        >
          <${Icon} name="send" />
        </button>
      </div>
      ${children}
    </form>
  `;
}
