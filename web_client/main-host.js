/**
 * The host's console at /host: the composition root.
 *
 * `/host#link=…` signs in with a one-time link; the link leaves the address at once, so that it is
 * not in the history or on a screen that is shared. `/host#show=…` is a show's console.
 */

import * as api from "./api.js";
import { HostConsole } from "./console.js";
import { speak } from "./i18n.js";
import { Refusal } from "./refusal.js";
import * as storage from "./storage.js";
import { html, render, useEffect, useMemo, useState } from "./vendor/preact-htm/standalone.module.js";
import { ConsolePage } from "./views/console-page.js";
import { HostShows } from "./views/host-shows.js";
import { SignIn } from "./views/sign-in.js";
import { SpeechProvider } from "./views/speech.js";

const hash = () => new URLSearchParams(location.hash.slice(1));

/** @param {{link: string | null}} props */
function HostApp({ link }) {
  const [who, setWho] = useState(storage.host());
  const [show, setShow] = useState(hash().get("show"));
  const [refusal, setRefusal] = useState(/** @type {Refusal | null} */ (null));
  const [asking, setAsking] = useState(link !== null);
  const signedIn = (/** @type {any} */ found) => {
    storage.keepHost(found);
    setRefusal(null);
    setWho(found);
  };
  const signOut = (/** @type {Refusal | undefined} */ why) => {
    storage.keepHost(null);
    setRefusal(why ?? null);
    setWho(null);
  };
  useEffect(() => {
    const moved = () => setShow(hash().get("show"));
    globalThis.addEventListener("hashchange", moved);
    if (link !== null) {
      api
        .session({ link })
        .then(signedIn, (error) => setRefusal(error))
        .finally(() => setAsking(false));
    }
    return () => globalThis.removeEventListener("hashchange", moved);
  }, []);
  const host = useMemo(() => (who && show ? new HostConsole(show, who) : null), [who, show]);
  if (asking) return html`<main class="sign-in"><span class="spinner spinner-big" role="img" aria-label="…"></span></main>`;
  if (!who) return html`<${SignIn} onSignedIn=${signedIn} refusal=${refusal} />`;
  if (host) {
    return html`<${ConsolePage}
      key=${show}
      host=${host}
      onLeave=${() => {
        location.hash = "";
      }}
      onSignOut=${signOut}
    />`;
  }
  return html`<${HostShows}
    who=${who}
    onOpen=${(/** @type {string} */ id) => {
      location.hash = `show=${encodeURIComponent(id)}`;
    }}
    onSignOut=${signOut}
  />`;
}

const link = hash().get("link");
if (link !== null) history.replaceState(null, "", location.pathname);
const speech = await speak();
render(
  html`<${SpeechProvider} first=${speech}><${HostApp} link=${link} /><//>`,
  /** @type {HTMLElement} */ (document.getElementById("app")),
);
