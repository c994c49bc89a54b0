/**
 * The host's console at /host: the composition root.
 *
 * `/host#link=…` signs in with a one-time link; the link leaves the address at once, so that it is
 * not in the history or on a screen that is shared. `/host#show=…` is a show's console; `#orders`
 * (with `&of=` a show and `&order=` one of them), `#packing=…`, `#office` and `#webhooks` are the rest.
 */

import * as api from "./api.js";
import { HostConsole } from "./console.js";
import { speak } from "./i18n.js";
import { Refusal } from "./refusal.js";
import * as storage from "./storage.js";
import { html, render, useEffect, useMemo, useState } from "./vendor/preact-htm/standalone.module.js";
import { ConsolePage } from "./views/console-page.js";
import { HostFrame, PAGES } from "./views/host-frame.js";
import { HostShows } from "./views/host-shows.js";
import { OfficePage } from "./views/office-page.js";
import { OrdersPage } from "./views/orders-page.js";
import { PackingPage } from "./views/packing-page.js";
import { SignIn } from "./views/sign-in.js";
import { SpeechProvider, useSpeech } from "./views/speech.js";
import { WebhooksPage } from "./views/webhooks-page.js";

const hash = () => new URLSearchParams(location.hash.slice(1));

/** @param {{link: string | null}} props */
function HostApp({ link }) {
  const { t } = useSpeech();
  const [who, setWho] = useState(storage.host());
  const [at, setAt] = useState(hash());
  const show = at.get("show");
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
    const moved = () => setAt(hash());
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
  if (asking) return html`<main class="sign-in"><span class="spinner spinner-big" role="img" aria-label=${t("loading")}></span></main>`;
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
  const page = PAGES.find((name) => name && at.has(name)) ?? "";
  const go = (/** @type {Record<string, string>} */ to) => {
    // "orders=&of=s1" reads as "orders&of=s1" in the address.
    location.hash = new URLSearchParams(to).toString().replace(/=(?=&|$)/g, "");
  };
  const failed = (/** @type {Refusal} */ refusal) => (refusal.status === 401 ? signOut(refusal) : undefined);
  const packing = at.get("packing");
  const of = at.get("of") ?? "";
  return html`<${HostFrame} who=${who} page=${packing ? "orders" : page} onSignOut=${signOut}>
    ${packing
      ? html`<${PackingPage} who=${who} show=${packing} />`
      : page === "orders"
        ? html`<${OrdersPage}
            who=${who}
            show=${of}
            open=${at.get("order")}
            onOpen=${(/** @type {string | null} */ order) => go({ orders: "", ...(of ? { of } : {}), ...(order ? { order } : {}) })}
            onShow=${(/** @type {string} */ chosen) => go({ orders: "", ...(chosen ? { of: chosen } : {}) })}
            onFailed=${failed}
          />`
        : page === "office"
          ? html`<${OfficePage} who=${who} onOpen=${(/** @type {string} */ order) => go({ orders: "", order })} />`
          : page === "webhooks"
            ? html`<${WebhooksPage} who=${who} />`
            : html`<${HostShows} who=${who} onOpen=${(/** @type {string} */ id) => go({ show: id })} onFailed=${failed} />`}
  <//>`;
}

const link = hash().get("link");
if (link !== null) history.replaceState(null, "", location.pathname);
const speech = await speak();
render(
  html`<${SpeechProvider} first=${speech}><${HostApp} link=${link} /><//>`,
  /** @type {HTMLElement} */ (document.getElementById("app")),
);
