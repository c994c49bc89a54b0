/** Line icons, drawn here: one path each on a 24 by 24 grid. */

import { html } from "../vendor/preact-htm/standalone.module.js";

/** @type {Record<string, string>} */
const PATHS = {
  close: "M6 6l12 12M18 6L6 18",
  heart: "M12 20s-7.500-4.600-7.500-10.200A4.300 4.300 0 0 1 12 7.200a4.300 4.300 0 0 1 7.500 2.600C19.500 15.400 12 20 12 20z",
  send: "M4.500 12h14M12.500 5.500l6.500 6.500-6.500 6.500",
  bag: "M6 8.500h12l1 11.500H5zM9 8.500V7a3 3 0 0 1 6 0v1.500",
  muted: "M4 10v4h3.500L12 18V6L7.500 10zM16 9.500l5 5M21 9.500l-5 5",
  sound: "M4 10v4h3.500L12 18V6L7.500 10zM15.500 9a4.200 4.200 0 0 1 0 6M18 6.500a8 8 0 0 1 0 11",
  play: "M8 5.500l11 6.500-11 6.500z",
  eye: "M2.500 12S6 5.800 12 5.800 21.500 12 21.500 12 18 18.200 12 18.200 2.500 12 2.500 12zM12 14.800a2.800 2.800 0 1 0 0-5.600 2.800 2.800 0 0 0 0 5.600z",
  down: "M6 9.500l6 6 6-6",
  back: "M14.500 5.500L8 12l6.500 6.500",
  pin: "M9 4h6l-1 6 3.500 3.500h-11L10 10zM12 13.500V20",
  megaphone: "M4 10v4h3l9 4.500v-13L7 10zM19 9.500a3.500 3.500 0 0 1 0 5M8 14.500l1 4.500h2.500",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13M10.500 10.500v6M13.500 10.500v6",
  plus: "M12 5.500v13M5.500 12h13",
  minus: "M5.500 12h13",
  tag: "M4 4h7.500L20 12.500 12.500 20 4 11.500zM8 8h.01",
  clock: "M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17zM12 7.500V12l3 2",
  upload: "M12 16V5M7.500 9L12 4.500 16.500 9M5 19.500h14",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500L20 20",
  check: "M5 12.500l4.500 4.500L19 7.500",
  globe: "M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17zM3.500 12h17M12 3.500c3 3 3 14 0 17M12 3.500c-3 3-3 14 0 17",
  pencil: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
};

/** @param {{name: string, filled?: boolean}} props */
export function Icon({ name, filled = false }) {
  return html`<svg class=${`icon ${filled ? "icon-filled" : ""}`} viewBox="0 0 24 24" aria-hidden="true">
    <path d=${PATHS[name]} />
  </svg>`;
}
