/**
 * The show's video in a <video> element, by whatever plays HLS here.
 *
 * Responsible for starting muted (browsers allow no other autoplay), for saying what state the
 * picture is in, and for coming back after the encoder or the network stopped. It must not know
 * shows. hls.js (374 KB) is loaded only when a video needs it, after the page can be used.
 *
 * Safari plays HLS itself and saves its battery with it; everywhere else hls.js is the better one,
 * also where a browser claims to play HLS.
 */

/** @typedef {"none" | "loading" | "playing" | "blocked" | "unplayable"} Picture */

/** First wait before a stopped video is tried again, milliseconds; doubled up to the second. */
const RETRY_MS = 2_000;
const RETRY_MAX_MS = 30_000;
const HLS = "application/vnd.apple.mpegurl";
const FILE = /\.(mp4|webm|m4v|ogv)([?#]|$)/i;

/**
 * Plays `address` in `video`; the returned function ends it.
 * @param {HTMLVideoElement} video
 * @param {string | null} address
 * @param {(picture: Picture) => void} tell
 * @returns {() => void}
 */
export function play(video, address, tell) {
  if (!address) {
    tell("none");
    return () => {};
  }
  const player = new Player(video, address, tell);
  player.load();
  return () => player.end();
}

class Player {
  /**
   * @param {HTMLVideoElement} video
   * @param {string} address
   * @param {(picture: Picture) => void} tell
   */
  constructor(video, address, tell) {
    this.video = video;
    this.address = address;
    this.tell = tell;
    this.ended = false;
    this.failures = 0;
    /** @type {any} */
    this.hls = null;
    /** @type {any} */
    this.timer = null;
    /** @type {[string, () => void][]} */
    this.listeners = [
      ["playing", () => this.playing()],
      ["canplay", () => this.begin()],
      ["error", () => this.native && this.failed()],
    ];
    for (const [name, act] of this.listeners) video.addEventListener(name, act);
  }

  /** The element itself loads the address. */
  get native() {
    return this.hls === null && Boolean(this.video.getAttribute("src"));
  }

  load() {
    this.tell("loading");
    const apple = navigator.vendor.startsWith("Apple") && this.video.canPlayType(HLS) !== "";
    if (apple || FILE.test(this.address)) this.video.src = this.address;
    else void this.loadHls();
  }

  async loadHls() {
    let Hls;
    try {
      ({ default: Hls } = await import("./vendor/hls/hls.light.min.mjs"));
    } catch {
      this.failed();
      return;
    }
    if (this.ended) return;
    if (!Hls.isSupported()) {
      if (this.video.canPlayType(HLS) === "") this.tell("unplayable");
      else this.video.src = this.address;
      return;
    }
    const hls = new Hls({ enableWorker: false, liveDurationInfinity: true, maxBufferLength: 12 });
    this.hls = hls;
    let recovered = false;
    hls.on(Hls.Events.ERROR, (/** @type {any} */ _, /** @type {any} */ error) => {
      if (!error.fatal) return;
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR && !recovered) {
        recovered = true;
        hls.recoverMediaError();
      } else {
        this.failed();
      }
    });
    hls.loadSource(this.address);
    hls.attachMedia(this.video);
  }

  begin() {
    this.video.play().catch((error) => {
      if (error?.name === "NotAllowedError" && !this.ended) this.tell("blocked");
    });
  }

  playing() {
    this.failures = 0;
    this.tell("playing");
  }

  failed() {
    if (this.ended) return;
    this.unload();
    this.tell("unplayable");
    const wait = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** Math.min(this.failures, 8));
    this.failures += 1;
    this.timer = setTimeout(() => this.load(), wait);
  }

  unload() {
    clearTimeout(this.timer);
    this.hls?.destroy();
    this.hls = null;
    if (this.video.getAttribute("src")) {
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  end() {
    this.ended = true;
    this.unload();
    for (const [name, act] of this.listeners) this.video.removeEventListener(name, act);
  }
}
