/**
 * The comments as they come. The newest stays in sight unless somebody is reading older ones; then
 * nothing moves and a button tells how many came. Screen readers hear a summary every few seconds,
 * not every comment.
 */

import {
  html,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from "../vendor/preact-htm/standalone.module.js";
import { useTicks } from "../observable.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/** So near the end counts as at the end, pixels. */
const NEAR_PX = 48;
/** Pace of the summary for screen readers, milliseconds. */
const SUMMARY_MS = 8_000;

/**
 * @param {{items: import("../chat.js").Item[], onAgain: (mine: any) => void, onDiscard: (rid: string) => void,
 *   onEdit: (mine: any) => void, onRetract?: (offset: number) => void}} props
 */
export function ChatList({ items, onAgain, onDiscard, onEdit, onRetract }) {
  const { t } = useSpeech();
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const stuck = useRef(true);
  const [unread, setUnread] = useState(0);
  const last = items.length > 0 ? items[items.length - 1].key : "";
  useLayoutEffect(() => {
    const element = list.current;
    if (!element) return;
    if (stuck.current) element.scrollTop = element.scrollHeight;
    else setUnread((n) => n + 1);
  }, [last, items.length]);
  useEffect(() => {
    const element = list.current;
    if (!element) return undefined;
    const keep = new ResizeObserver(() => {
      if (stuck.current) element.scrollTop = element.scrollHeight;
    });
    keep.observe(element);
    return () => keep.disconnect();
  }, []);
  const scrolled = () => {
    const element = list.current;
    if (!element) return;
    stuck.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
    if (stuck.current) setUnread(0);
  };
  const toEnd = () => {
    stuck.current = true;
    setUnread(0);
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  };
  return html`
    <div class="chat">
      <div
        class="chat-list"
        ref=${list}
        role="log"
        aria-live="off"
        aria-label=${t("chat")}
        tabindex="0"
        data-testid="chat"
        onScroll=${scrolled}
      >
        <div class="chat-space"></div>
        ${items.length === 0 && html`<p class="chat-empty">${t("chat.empty")}</p>`}
        ${items.map((item) => html`<${Line}
          key=${item.key}
          item=${item}
          onAgain=${onAgain}
          onDiscard=${onDiscard}
          onEdit=${onEdit}
          onRetract=${onRetract}
        />`)}
      </div>
      ${unread > 0 &&
      html`<button type="button" class="chat-new" data-testid="chat-new" onClick=${toEnd}>
        <${Icon} name="down" /> ${t("chat.new")}
      </button>`}
      <${Summary} items=${items} />
    </div>
  `;
}

/** @param {any} props */
function Line({ item, onAgain, onDiscard, onEdit, onRetract }) {
  const { t } = useSpeech();
  if (item.kind === "gap") {
    return html`<p class="chat-gap" data-testid="chat-gap">${t("chat.gap", { n: item.n })}</p>`;
  }
  if (item.kind === "mine") {
    const { mine } = item;
    if (mine.state === "failed") {
      return html`<${Failed} mine=${mine} onAgain=${onAgain} onDiscard=${onDiscard} onEdit=${onEdit} />`;
    }
    return html`<div class="comment comment-pending" data-testid="comment-pending">
      <p><b>${t("chat.you")}</b> ${mine.text}</p>
      <span class="spinner" role="img" aria-label=${t("chat.sending")}></span>
    </div>`;
  }
  const { comment, own, offset } = item;
  const role = ["host", "moderator", "operator"].includes(comment.by.role) ? comment.by.role : null;
  return html`
    <div
      class=${`comment ${own ? "comment-own" : ""} ${role ? "comment-staff" : ""}`}
      data-testid="comment"
      data-offset=${offset}
    >
      <p>
        ${role && html`<span class="role">${t(`role.${role}`)}</span> `}
        <b>${comment.by.name}</b> ${comment.text}
      </p>
      ${onRetract &&
      html`<button
        type="button"
        class="icon-button retract"
        aria-label=${t("chat.retract", { name: comment.by.name })}
        title=${t("chat.retract", { name: comment.by.name })}
        data-testid="retract"
        onClick=${() => onRetract(offset)}
      >
        <${Icon} name="trash" />
      </button>`}
    </div>
  `;
}

/** @param {any} props */
function Failed({ mine, onAgain, onDiscard, onEdit }) {
  const { t, say } = useSpeech();
  const waitMs = (mine.retryAt ?? 0) - Date.now();
  useTicks(waitMs > 0 ? 250 : null);
  const waitS = Math.max(0, Math.ceil(waitMs / 1000));
  return html`
    <div class="comment comment-failed" role="alert" data-testid="comment-failed">
      <p><b>${t("chat.you")}</b> ${mine.text}</p>
      <p class="reason" data-testid="comment-reason">${say(mine.refusal)}</p>
      <div class="comment-actions">
        ${mine.refusal.temporary &&
        html`<button
          type="button"
          class="link-button"
          disabled=${waitS > 0}
          data-testid="comment-again"
          onClick=${() => onAgain(mine)}
        >
          ${waitS > 0 ? t("chat.again_in", { n: waitS }) : t("chat.again")}
        </button>`}
        <button type="button" class="link-button" data-testid="comment-edit" onClick=${() => onEdit(mine)}>
          ${t("chat.edit")}
        </button>
        <button type="button" class="link-button" data-testid="comment-discard" onClick=${() => onDiscard(mine.rid)}>
          ${t("chat.discard")}
        </button>
      </div>
    </div>
  `;
}

/** @param {{items: import("../chat.js").Item[]}} props */
function Summary({ items }) {
  const { t } = useSpeech();
  const now = useRef(items);
  now.current = items;
  const told = useRef(/** @type {number | null} */ (null));
  const [text, setText] = useState("");
  useEffect(() => {
    const timer = setInterval(() => {
      const comments = now.current.filter((item) => item.kind === "comment");
      const newest = /** @type {any} */ (comments[comments.length - 1]);
      if (!newest) return;
      const before = told.current;
      told.current = newest.offset;
      if (before === null || before === newest.offset) return;
      const n = comments.filter((/** @type {any} */ item) => item.offset > before).length;
      const { by, text: words } = newest.comment;
      setText(t("chat.summary", { n, name: by.name, text: words }));
    }, SUMMARY_MS);
    return () => clearInterval(timer);
  }, [t]);
  return html`<p class="hidden-text" aria-live="polite">${text}</p>`;
}
