/**
 * A sheet from below on a phone, a dialog in the middle on a desk.
 *
 * The browser's own <dialog> does what is hard: focus stays inside, Escape closes, what lies behind
 * cannot be reached. Closing gives the focus back to where it was.
 */

import { html, useEffect, useRef } from "../vendor/preact-htm/standalone.module.js";
import { Icon } from "./icon.js";

/**
 * @param {{title: string, onClose: () => void, closeLabel: string, wide?: boolean, testid: string,
 *   children?: any, busy?: boolean}} props
 */
export function Dialog({ title, onClose, closeLabel, wide = false, testid, children, busy = false }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const dialog = ref.current;
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    dialog?.showModal();
    return () => {
      if (dialog?.open) dialog.close();
      before?.focus?.();
    };
  }, []);
  const close = () => {
    if (!busy) onClose();
  };
  return html`
    <dialog
      ref=${ref}
      class=${`dialog ${wide ? "dialog-wide" : ""}`}
      aria-labelledby=${`${testid}-title`}
      data-testid=${testid}
      onCancel=${(/** @type {Event} */ event) => {
        event.preventDefault();
        close();
      }}
      onMouseDown=${(/** @type {MouseEvent} */ event) => {
        if (event.target === ref.current) close();
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id=${`${testid}-title`} tabindex="-1" autofocus>${title}</h2>
          <button
            type="button"
            class="icon-button"
            aria-label=${closeLabel}
            data-testid=${`${testid}-close`}
            onClick=${close}
          >
            <${Icon} name="close" />
          </button>
        </header>
        ${children}
      </div>
    </dialog>
  `;
}
