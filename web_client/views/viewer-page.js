/**
 * The viewer's page. Responsible for which sheet is open and for handing parts of the view to the
 * parts of the page; it holds no rules.
 */

import { html, useEffect, useMemo, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import { timeline } from "../chat.js";
import { useObservable, useTicks } from "../observable.js";
import { itemPhase, offerPhase, offers } from "../offers.js";
import { over } from "../purchases.js";
import { stateOf } from "../store.js";
import { BuySheet } from "./buy-sheet.js";
import { ChatList } from "./chat-list.js";
import { Composer } from "./composer.js";
import { ConnectionBanner } from "./connection-banner.js";
import { HoldSheet } from "./hold-sheet.js";
import { Icon } from "./icon.js";
import { LikeButton } from "./like-button.js";
import { MyOrder } from "./my-order.js";
import { NameSheet } from "./name-sheet.js";
import { ProductCard } from "./product-card.js";
import { PurchasesSheet } from "./purchases-sheet.js";
import { useSpeech } from "./speech.js";
import { Stage } from "./stage.js";
import { TopBar } from "./top-bar.js";
import { Trouble } from "./trouble.js";
import { WaitBox } from "./wait-box.js";

/** @typedef {{name: "buy", product: string} | {name: "hold", rid: string} | {name: "purchases"} | {name: "order", id: string} | {name: "name"} | null} Sheet */

/** @param {{viewer: import("../viewer.js").Viewer, returned: {rid: string | null, done: boolean}}} props `returned`: from the provider's page */
export function ViewerPage({ viewer, returned: back }) {
  const { t } = useSpeech();
  const view = useObservable(viewer.observable, (all) => all);
  const [sheet, open] = useState(/** @type {Sheet} */ (null));
  const [picked, pick] = useState(/** @type {string | null} */ (null));
  const [draft, setDraft] = useState(/** @type {{text: string} | null} */ (null));
  const returned = back.rid;
  const { room, holds, orders, press, you, mine } = view;
  const show = room.facts.show;
  const now = () => viewer.now();
  useTicks(1000);
  const all = offers(room, now());
  const offer = all.find((one) => one.product === picked) ?? all[0] ?? null;
  const items = useMemo(() => timeline(room, mine, you?.id ?? null), [room.comments, room.gaps, room.retracted, mine, you]);
  const close = () => open(null);

  // A product that is pinned anew takes the card, whatever was looked at before.
  useEffect(() => pick(null), [room.facts.pin?.product, room.facts.pin?.pinned_at]);
  useEffect(() => {
    if (!view.welcomed || !returned) return;
    void viewer.purchases.look(returned).then((found) => {
      if (!found && !viewer.observable.value.holds[returned]) {
        viewer.observable.change({ notice: { key: "hold.not_found" } });
      }
    });
    open({ name: "hold", rid: returned });
    void api
      .orders(viewer.token ?? "", null)
      .then((found) => found.forEach((order) => viewer.purchases.putOrder(order)))
      .catch(() => {});
  }, [view.welcomed]);

  const buy = async (/** @type {any} */ item, /** @type {number} */ quantity) => {
    const hold = await viewer.purchases.buy(
      item.drop.id,
      [[item.sku, quantity]],
      item.price.amount * quantity,
    );
    if (hold) open({ name: "hold", rid: hold.rid });
  };
  const again = async () => {
    const hold = await viewer.purchases.buyAgain();
    if (hold) open({ name: "hold", rid: hold.rid });
  };
  const buyFromCard = () => {
    const ready = offer?.items.filter((item) => itemPhase(item, now()) === "open") ?? [];
    if (offer && offer.items.length > 1) open({ name: "buy", product: offer.product });
    else if (ready[0]) void buy(ready[0], 1);
  };
  const trouble = html`<${Trouble}
    press=${press}
    notice=${view.notice && { ...view.notice, values: { ...view.notice.values, title: titleOf(room, view.notice) } }}
    onAgain=${again}
    onDismiss=${() => {
      viewer.purchases.dismiss();
      viewer.observable.change({ notice: null });
    }}
  />`;
  const openHolds = Object.values(holds).filter((hold) => !over(hold));
  const current = sheet?.name === "hold" ? holds[sheet.rid] : null;
  const sheetOffer = sheet?.name === "buy" ? all.find((one) => one.product === sheet.product) : null;
  const waitable =
    offer && ["sold_out", "raffle"].includes(offerPhase(offer, now()))
      ? offer.items.find((item) => item.drop && !openHolds.some((hold) => hold.lines.some((/** @type {any} */ line) => line.sku === item.sku)))
      : null;
  const waitBox = (/** @type {any} */ item, quantity = 1) =>
    html`<${WaitBox}
      key=${item.sku}
      item=${item}
      quantity=${quantity}
      count=${stateOf(room, `waiting:${item.sku}`)}
      now=${now}
      viewer=${viewer}
    />`;
  return html`
    <main class="viewer" data-testid="viewer-page" data-connection=${view.status.state}>
      <${Stage} show=${show} now=${now} waiting=${!view.welcomed && !viewer.connection.over} />
      <${TopBar}
        show=${show}
        viewers=${stateOf(room, "viewers")}
        bag=${openHolds.length}
        onBag=${() => open({ name: "purchases" })}
      />
      <${ConnectionBanner}
        status=${view.status}
        welcomed=${view.welcomed}
        onAgain=${() => (viewer.connection.over ? location.reload() : viewer.connection.wake())}
      />
      <section class="side">
        ${room.facts.announcement &&
        html`<p class="announcement" role="status" data-testid="announcement">
          <${Icon} name="megaphone" /><span>${room.facts.announcement.text}</span>
        </p>`}
        <${ChatList}
          items=${items}
          onAgain=${(/** @type {any} */ one) => viewer.chat.again(one)}
          onDiscard=${(/** @type {string} */ rid) => viewer.chat.discard(rid)}
          onEdit=${(/** @type {any} */ one) => {
            viewer.chat.discard(one.rid);
            setDraft({ text: one.text });
          }}
        />
        ${!sheet && trouble}
        ${openHolds.length > 0 &&
        html`<${HoldReminder} holds=${openHolds} onOpen=${(/** @type {string} */ rid) => open({ name: "hold", rid })} />`}
        ${waitable && !sheetOffer && waitBox(waitable)}
        ${offer &&
        html`<${ProductCard}
          offer=${offer}
          others=${all.filter((one) => one !== offer)}
          now=${now}
          buying=${press?.state === "buying"}
          onBuy=${buyFromCard}
          onOpen=${() => open({ name: "buy", product: offer.product })}
          onPick=${pick}
        />`}
        <div class="bottom">
          <${Composer}
            onSend=${(/** @type {string} */ text) => viewer.chat.send(text)}
            draft=${draft}
            disabled=${show?.state === "ended"}
            reason=${t("chat.ended")}
          >
            <button
              type="button"
              class="round-button"
              aria-label=${t("name.change", { name: you?.name ?? "" })}
              title=${you?.name ?? ""}
              data-testid="name-button"
              onClick=${() => open({ name: "name" })}
            >
              <span class="initial" aria-hidden="true">${[...(you?.name ?? "?")][0]?.toUpperCase()}</span>
            </button>
          <//>
          <${LikeButton}
            total=${(stateOf(room, "likes") ?? 0) + view.likesWaiting}
            onLike=${() => viewer.like()}
            disabled=${!view.welcomed}
          />
        </div>
      </section>
      ${sheetOffer &&
      html`<${BuySheet}
        offer=${sheetOffer}
        now=${now}
        press=${press}
        onBuy=${buy}
        onClose=${close}
        trouble=${trouble}
        waitBox=${waitBox}
        limited=${Object.values(holds).some((hold) => hold.lapses > 0)}
      />`}
      ${current &&
      html`<${HoldSheet}
        key=${current.rid}
        hold=${current}
        order=${Object.values(orders).find((order) => order.rid === current.rid)}
        returned=${returned !== current.rid ? "" : back.done ? "done" : "back"}
        declined=${Boolean(view.payments[current.rid])}
        holdS=${room.facts[`drop:${current.drop}`]?.hold_s ?? null}
        viewer=${viewer}
        onOrder=${(/** @type {string} */ id) => open({ name: "order", id })}
        onClose=${close}
      />`}
      ${sheet?.name === "purchases" &&
      html`<${PurchasesSheet}
        viewer=${viewer}
        holds=${Object.values(holds)}
        orders=${Object.values(orders)}
        now=${now}
        onOpen=${(/** @type {string} */ rid) => open({ name: "hold", rid })}
        onOrder=${(/** @type {string} */ id) => open({ name: "order", id })}
        onClose=${close}
      />`}
      ${sheet?.name === "order" &&
      html`<${MyOrder}
        key=${sheet.id}
        viewer=${viewer}
        id=${sheet.id}
        known=${orders[sheet.id]}
        claim=${holds[orders[sheet.id]?.rid]?.receipt}
        onBack=${() => open({ name: "purchases" })}
        onClose=${close}
      />`}
      ${sheet?.name === "name" &&
      html`<${NameSheet}
        name=${you?.name ?? ""}
        locked=${viewer.hasOpenHolds}
        onSave=${(/** @type {string} */ name) => viewer.rename(name)}
        onClose=${close}
      />`}
      <p class="hidden-text" aria-live="polite">${offer ? t(`say.${offerPhase(offer, now())}`, { title: offer.title }) : ""}</p>
    </main>
  `;
}

/**
 * What a notice is about: by now another product may be in the show.
 * @param {import("../store.js").Room} room
 * @param {{drop?: string, sku?: string}} notice
 */
function titleOf(room, { drop, sku }) {
  return room.facts[`drop:${drop}`]?.lines.find((/** @type {any} */ line) => line.sku === sku)?.title || (sku ?? "");
}

/** @param {{holds: any[], onOpen: (rid: string) => void}} props */
function HoldReminder({ holds, onOpen }) {
  const { t } = useSpeech();
  const first = [...holds].sort((a, b) => a.until_ms - b.until_ms)[0];
  return html`<button
    type="button"
    class="reminder"
    data-testid="hold-reminder"
    onClick=${() => onOpen(first.rid)}
  >
    <${Icon} name="clock" />
    <span>${t("hold.reminder", { n: holds.length })}</span>
    <b>${t(first.state === "held" ? "hold.pay_now" : "hold.see")}</b>
  </button>`;
}
