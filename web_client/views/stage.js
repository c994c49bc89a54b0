/** The picture: video, its glow on a wide screen, and what stands there when there is no video. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm/standalone.module.js";
import { formatCountdown, formatDate } from "../money.js";
import { useTicks } from "../observable.js";
import { play } from "../video.js";
import { Icon } from "./icon.js";
import { useSpeech } from "./speech.js";

/** The glow is the video, 16 pixels wide and blurred; redrawn so seldom, milliseconds. */
const GLOW_MS = 400;

/**
 * @param {{show: any, now: () => number, waiting: boolean}} props `waiting`: not joined yet
 */
export function Stage({ show, now, waiting }) {
  const { t } = useSpeech();
  const ref = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const [picture, setPicture] = useState("loading");
  const [muted, setMuted] = useState(true);
  const state = show?.state ?? null;
  const address = state === "ended" ? null : (show?.video ?? null);
  useEffect(() => {
    if (!ref.current || !show) return undefined;
    return play(ref.current, address, setPicture);
  }, [address, Boolean(show)]);
  const playing = picture === "playing" && state !== "paused";
  const sound = () => {
    const video = ref.current;
    if (!video) return;
    video.muted = !video.muted;
    setMuted(video.muted);
    void video.play().catch(() => {});
  };
  return html`
    <section class="stage" aria-label=${t("stage")} data-testid="stage" data-picture=${picture}>
      <${Glow} video=${ref} on=${playing} />
      <video
        ref=${ref}
        class=${`stage-video ${playing ? "" : "stage-video-hidden"}`}
        muted
        autoplay
        playsinline
        disableRemotePlayback
        tabindex="-1"
        data-testid="video"
      ></video>
      ${!playing && html`<${Placeholder} show=${show} picture=${picture} now=${now} waiting=${waiting} />`}
      <div class="stage-shade" aria-hidden="true"></div>
      ${picture === "blocked" &&
      html`<button type="button" class="stage-play" data-testid="video-play" onClick=${() => ref.current?.play()}>
        <${Icon} name="play" filled />
        <span>${t("video.play")}</span>
      </button>`}
      ${picture === "playing" &&
      html`<button
        type="button"
        class="stage-sound"
        aria-pressed=${muted ? "false" : "true"}
        data-testid="unmute"
        onClick=${sound}
      >
        <${Icon} name=${muted ? "muted" : "sound"} />
        <span class=${muted ? "" : "hidden-text"}>${t(muted ? "video.unmute" : "video.mute")}</span>
      </button>`}
    </section>
  `;
}

/** @param {{show: any, picture: string, now: () => number, waiting: boolean}} props */
function Placeholder({ show, picture, now, waiting }) {
  const { t, language } = useSpeech();
  const startsAt = show?.state === "scheduled" ? show.starts_at : null;
  useTicks(startsAt ? 1000 : null);
  const key = waiting
    ? "stage.joining"
    : ["scheduled", "paused", "ended"].includes(show?.state)
      ? `stage.${show.state}`
      : picture === "unplayable"
        ? "stage.unplayable"
        : picture === "loading"
          ? "stage.loading"
          : "stage.no_video";
  return html`
    <div class="placeholder" data-testid="placeholder">
      <svg class="placeholder-art" viewBox="0 0 200 200" aria-hidden="true">
        <path class="arch" d="M48 152V92a52 52 0 0 1 104 0v60z" />
        <path class="arch-line" d="M30 152h140M48 152V92a52 52 0 0 1 104 0v60" />
        <circle class="arch-dot" cx="100" cy="124" r="20" />
      </svg>
      ${(show || waiting) && html`<p class="placeholder-text">${t(key)}</p>`}
      ${startsAt &&
      html`<p class="placeholder-time">
        ${startsAt > now() ? formatCountdown(startsAt - now()) : ""}
        <span>${formatDate(startsAt, language)}</span>
      </p>`}
    </div>
  `;
}

/** @param {{video: any, on: boolean}} props */
function Glow({ video, on }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    if (!on || !matchMedia("(min-width: 900px)").matches) return undefined;
    const draw = () => {
      const context = canvas.current?.getContext("2d");
      if (context && video.current?.readyState >= 2) context.drawImage(video.current, 0, 0, 16, 16);
    };
    draw();
    const timer = setInterval(draw, GLOW_MS);
    return () => clearInterval(timer);
  }, [on]);
  return html`<canvas ref=${canvas} class="stage-glow" width="16" height="16" aria-hidden="true"></canvas>`;
}
