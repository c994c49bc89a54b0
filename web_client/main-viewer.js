/** The viewer's page at /show/{id}: the composition root. */

import { speak } from "./i18n.js";
import { html, render } from "./vendor/preact-htm/standalone.module.js";
import { SpeechProvider } from "./views/speech.js";
import { ViewerPage } from "./views/viewer-page.js";
import { Viewer } from "./viewer.js";

const show = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const parameters = new URLSearchParams(location.search);
// Back from the provider's page: ?payment=done&rid=… or ?payment=back&rid=… (or ?paid=…).
const returned = {
  rid: parameters.get("paid") ?? parameters.get("rid"),
  done: parameters.get("payment") !== "back",
};
if (parameters.size > 0) history.replaceState(null, "", location.pathname);

const speech = await speak();
const guestName = () => speech.t("guest.name", { number: String(1000 + Math.floor(Math.random() * 9000)) });
const viewer = new Viewer(show, guestName);
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
render(
  html`<${SpeechProvider} first=${speech}><${ViewerPage} viewer=${viewer} returned=${returned} /><//>`,
  root,
);
void viewer.start();
viewer.observable.subscribe(() => {
  const title = viewer.observable.value.room.facts.show?.title;
  if (title && document.title !== title) document.title = title;
});
