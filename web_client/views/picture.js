/** A product's picture, or a quiet placeholder when there is none or it cannot be loaded. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import { Icon } from "./icon.js";

/** @param {{src: string | null | undefined, alt?: string, class?: string}} props */
export function Picture({ src, alt = "", class: name = "" }) {
  const [broken, setBroken] = useState(/** @type {string | null} */ (null));
  if (!src || broken === src) {
    return html`<span class=${`picture picture-none ${name}`} aria-hidden="true">
      <${Icon} name="tag" />
    </span>`;
  }
  return html`<img
    class=${`picture ${name}`}
    src=${src}
    alt=${alt}
    loading="lazy"
    decoding="async"
    onError=${() => setBroken(src)}
  />`;
}
