/** The console of one show. Responsible for the layout and for what is on top of it. */

import { html, useEffect, useMemo, useState } from "../vendor/preact-htm/standalone.module.js";
import { timeline } from "../chat.js";
import { formatCount } from "../money.js";
import { useObservable } from "../observable.js";
import { stateOf } from "../store.js";
import { Catalogue } from "./catalogue.js";
import { ChatList } from "./chat-list.js";
import { Composer } from "./composer.js";
import { ConnectionBanner } from "./connection-banner.js";
import { DropsPanel } from "./drops-panel.js";
import { HostControls } from "./host-controls.js";
import { Icon } from "./icon.js";
import { OrdersPanel } from "./orders-panel.js";
import { SellDialog } from "./sell-dialog.js";
import { LanguageSwitch, useSpeech } from "./speech.js";
import { StockLight } from "./stock-light.js";
import { StateBadge } from "./top-bar.js";

/**
 * @param {{host: import("../console.js").HostConsole, onLeave: () => void, onSignOut: (refusal?: any) => void}} props
 */
export function ConsolePage({ host, onLeave, onSignOut }) {
  const { t, say, language } = useSpeech();
  const view = useObservable(host.observable, (all) => all);
  const [selling, sell] = useState(/** @type {any} */ (null));
  const [draft, setDraft] = useState(/** @type {{text: string} | null} */ (null));
  const { room, mine, you, hold, status } = view;
  useEffect(() => host.start(), [host]);
  useEffect(() => {
    if (status.refused?.code.startsWith("token_")) onSignOut(status.refused);
  }, [status.refused]);
  const items = useMemo(
    () => timeline(room, mine, you?.id ?? null),
    [room.comments, room.gaps, room.retracted, mine, you],
  );
  const show = room.facts.show;
  const disabled = hold !== "mine" || status.state !== "connected";
  const running = show?.state !== "ended";
  const viewers = stateOf(room, "viewers");
  const pace = stateOf(room, "pace");
  const viewersTitle = viewers
    ? [t("viewers.peak", { n: viewers.peak }), viewers.unique === undefined ? "" : t("viewers.unique", { n: viewers.unique })].filter(Boolean).join(" · ")
    : "";
  const light = status.state === "connected" ? (hold === "mine" ? "on" : "busy") : "off";
  return html`
    <main class="console" data-testid="console" data-console=${hold} data-connection=${status.state}>
      <header class="host-bar">
        <button type="button" class="icon-button" aria-label=${t("host.shows")} data-testid="leave" onClick=${onLeave}>
          <${Icon} name="back" />
        </button>
        <h1 class="host-title" data-testid="show-title">${show?.title ?? ""}</h1>
        <${StateBadge} state=${show?.state} />
        <span class="grow"></span>
        ${viewers &&
        html`<span class="counter" data-testid="viewers" title=${viewersTitle}>
          <${Icon} name="eye" /> ${formatCount(viewers.now, language)}<span class="hidden-text">${t("viewers", { n: viewers.now })}</span>
        </span>`}
        ${pace?.step > 0 &&
        html`<span class="counter" role="status" data-testid="pace" data-step=${pace.step}>${t(`pace.${Math.min(pace.step, 3)}`)}</span>`}
        <span class="counter" data-testid="likes">
          <${Icon} name="heart" filled /> ${formatCount(stateOf(room, "likes") ?? 0, language)}
        </span>
        <span class=${`light light-${light}`} role="status" data-testid="light" data-state=${light}>
          <span class="light-dot" aria-hidden="true"></span>${t(`light.${light}`)}
        </span>
        <${StockLight} token=${host.who.token} />
        <a class="chip-button" href=${`/show/${encodeURIComponent(host.show)}`} target="_blank" rel="noopener" data-testid="open-viewer">
          ${t("host.viewer_page")}
        </a>
        <${LanguageSwitch} />
      </header>
      <${ConnectionBanner}
        status=${status}
        welcomed=${view.welcomed}
        onAgain=${() => (host.connection.over ? location.reload() : host.connection.wake())}
      />
      ${hold === "taken" &&
      html`<div class="taken" role="alert" data-testid="console-taken">
        <span>${t("host.taken")}</span>
        <button type="button" class="secondary" disabled=${status.state !== "connected"} data-testid="take-back" onClick=${() => host.take()}>
          ${t("host.take_back")}
        </button>
      </div>`}
      ${view.refusal &&
      hold !== "taken" &&
      html`<p class="trouble host-trouble" role="alert" data-testid="host-trouble" data-code=${view.refusal.code}>
        <span>${say(view.refusal)}</span>
        <button type="button" class="link-button" onClick=${() => host.observable.change({ refusal: null })}>${t("dismiss")}</button>
      </p>`}
      <div class="console-grid">
        <div class="column column-show">
          <${HostControls} host=${host} show=${show} announcement=${room.facts.announcement} disabled=${disabled} waiting=${!view.welcomed} />
        </div>
        <div class="column column-shop">
          <${DropsPanel} host=${host} room=${room} disabled=${disabled} />
          <${Catalogue}
            host=${host}
            pinned=${room.facts.pin?.product ?? null}
            states=${room.states}
            disabled=${disabled || !running}
            canSell=${["live", "paused"].includes(show?.state)}
            onSell=${sell}
            version=${0}
          />
        </div>
        <div class="column column-people">
          <${OrdersPanel} host=${host} orders=${view.orders} fresh=${view.fresh} />
          <section class="panel host-chat" aria-label=${t("chat")}>
            <header class="panel-head"><h2>${t("chat")}</h2></header>
            <${ChatList}
              items=${items}
              onAgain=${(/** @type {any} */ one) => host.chat.again(one)}
              onDiscard=${(/** @type {string} */ rid) => host.chat.discard(rid)}
              onEdit=${(/** @type {any} */ one) => {
                host.chat.discard(one.rid);
                setDraft({ text: one.text });
              }}
              onRetract=${disabled ? undefined : (/** @type {number} */ comment) => host.act("retract", { comment }).catch(() => {})}
            />
            <${Composer} onSend=${(/** @type {string} */ text) => host.chat.send(text)} draft=${draft} />
          </section>
        </div>
      </div>
      ${selling && html`<${SellDialog} product=${selling} host=${host} onClose=${() => sell(null)} />`}
    </main>
  `;
}
