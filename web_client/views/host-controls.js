/** The show itself: the picture as viewers get it, go live, pause, end, the announcement. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import { ANNOUNCEMENT_CHARS_MAX } from "../protocol.js";
import { Dialog } from "./dialog.js";
import { useSpeech } from "./speech.js";
import { Stage } from "./stage.js";

/**
 * @param {{host: import("../console.js").HostConsole, show: any, announcement: any, disabled: boolean, waiting: boolean}} props
 */
export function HostControls({ host, show, announcement, disabled, waiting }) {
  const { t } = useSpeech();
  const [ending, setEnding] = useState(false);
  const state = show?.state;
  const move = (/** @type {string} */ name) => host.act(name).catch(() => {});
  return html`
    <section class="panel controls" aria-label=${t("controls")}>
      <div class="preview"><${Stage} show=${show} now=${() => host.now()} waiting=${waiting} /></div>
      <div class="moves">
        ${(state === "scheduled" || state === "paused") &&
        html`<button type="button" class="primary go-live" disabled=${disabled} data-testid="go-live" onClick=${() => move("go_live")}>
          ${t(state === "paused" ? "controls.resume" : "controls.go_live")}
        </button>`}
        ${state === "live" &&
        html`<button type="button" class="secondary" disabled=${disabled} data-testid="pause" onClick=${() => move("pause")}>
          ${t("controls.pause")}
        </button>`}
        ${["live", "paused", "scheduled"].includes(state) &&
        html`<button type="button" class="secondary danger" disabled=${disabled} data-testid="end" onClick=${() => setEnding(true)}>
          ${t("controls.end")}
        </button>`}
        ${state === "ended" && html`<p class="hint">${t("controls.ended")}</p>`}
      </div>
      ${state !== "ended" && html`<${Announcement} host=${host} announcement=${announcement} disabled=${disabled} />`}
      ${ending &&
      html`<${Dialog} title=${t("controls.end_title")} onClose=${() => setEnding(false)} closeLabel=${t("close")} testid="end-dialog">
        <p>${t("controls.end_text")}</p>
        <button
          type="button"
          class="primary danger-fill"
          data-testid="end-confirm"
          onClick=${() => {
            setEnding(false);
            void move("end");
          }}
        >
          ${t("controls.end_confirm")}
        </button>
        <button type="button" class="quiet" onClick=${() => setEnding(false)}>${t("controls.end_keep")}</button>
      <//>`}
    </section>
  `;
}

/** @param {any} props */
function Announcement({ host, announcement, disabled }) {
  const { t } = useSpeech();
  const [text, setText] = useState(announcement?.text ?? "");
  useEffect(() => setText(announcement?.text ?? ""), [announcement?.text]);
  const announce = (/** @type {string} */ words) => host.act("announce", { text: words }).catch(() => {});
  return html`
    <form
      class="announce"
      data-testid="announce-form"
      onSubmit=${(/** @type {Event} */ event) => {
        event.preventDefault();
        void announce(text.trim());
      }}
    >
      <label class="field">
        <span>${t("controls.announcement")}</span>
        <textarea
          rows="3"
          maxlength=${ANNOUNCEMENT_CHARS_MAX}
          value=${text}
          placeholder=${t("controls.announcement_hint")}
          data-testid="announce-text"
          onInput=${(/** @type {any} */ event) => setText(event.target.value)}
        ></textarea>
      </label>
      <div class="announce-buttons">
        <button type="submit" class="secondary" disabled=${disabled || !text.trim() || text.trim() === announcement?.text} data-testid="announce">
          ${t("controls.announce")}
        </button>
        ${announcement &&
        html`<button type="button" class="secondary" disabled=${disabled} data-testid="announce-clear" onClick=${() => announce("")}>
          ${t("controls.announce_clear")}
        </button>`}
      </div>
    </form>
  `;
}
