/** A heart to tap, hearts that rise (own ones, and a few for the others'), and the total. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatCount } from "../money.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/** Hearts in the air at once. */
const HEARTS_MAX = 20;
/** Hearts for what others gave since the last look. */
const OTHERS_MAX = 3;
const RISE_MS = 2_400;

/** @param {{total: number, onLike: () => void, disabled?: boolean}} props */
export function LikeButton({ total, onLike, disabled = false }) {
  const { t, language } = useSpeech();
  const [hearts, setHearts] = useState(/** @type {{id: number, x: number, hue: number}[]} */ ([]));
  const next = useRef(0);
  const seen = useRef(/** @type {number | null} */ (null));
  const rise = (/** @type {number} */ n) => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const made = Array.from({ length: n }, () => {
      next.current += 1;
      return { id: next.current, x: Math.random() * 36 - 18, hue: next.current % 4 };
    });
    setHearts((all) => [...all, ...made].slice(-HEARTS_MAX));
    const ids = new Set(made.map((heart) => heart.id));
    setTimeout(() => setHearts((all) => all.filter((heart) => !ids.has(heart.id))), RISE_MS);
  };
  useEffect(() => {
    if (seen.current !== null && total > seen.current && !document.hidden) {
      rise(Math.min(OTHERS_MAX, total - seen.current));
    }
    seen.current = total;
  }, [total]);
  const like = () => {
    if (seen.current !== null) seen.current += 1;
    onLike();
    rise(1);
  };
  return html`
    <div class="like">
      <div class="hearts" aria-hidden="true">
        ${hearts.map(
          (heart) => html`<span
            key=${heart.id}
            class=${`heart heart-${heart.hue}`}
            style=${{ "--x": `${heart.x}px` }}
          >
            <${Icon} name="heart" filled />
          </span>`,
        )}
      </div>
      <button
        type="button"
        class="round-button like-button"
        aria-label=${t("like", { n: total })}
        disabled=${disabled}
        data-testid="like"
        onClick=${like}
      >
        <${Icon} name="heart" filled />
        <span class="like-total" aria-hidden="true" data-testid="likes" data-total=${total}>
          ${formatCount(total, language)}
        </span>
      </button>
    </div>
  `;
}
