/**
 * What the shop holds about a buyer who asks: a copy to hand over, and being forgotten.
 *
 * Forgetting is refused while an order is under way; whether it is done all the same is the host's
 * judgement, asked for a second time.
 */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { save } from "../save.js";
import { Dialog } from "./dialog.js";
import { useOnce } from "./order-dialogs.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @param {{token: string, buyer: string, onForgotten: () => void}} props */
export function BuyerData({ token, buyer, onForgotten }) {
  const { t } = useSpeech();
  const once = useOnce();
  const load = useWork();
  const work = useWork();
  const [sure, ask] = useState(false);
  const [force, setForce] = useState(false);
  const take = () =>
    load.run(async () => {
      const text = JSON.stringify(await desk.personData(token, buyer), null, 2);
      save(new Blob([text], { type: "application/json" }), `data-${buyer}.json`);
    });
  const forget = () =>
    work.run(async () => {
      await desk.forgetPerson(token, buyer, force, once.key(["forget", buyer, force]));
      ask(false);
      onForgotten();
    });
  const underWay = work.refusal?.code === "orders_under_way";
  return html`<div class="order-actions">
      <button type="button" class="pill" disabled=${load.busy} data-testid="buyer-data-take" onClick=${take}>${t("buyer_data.take")}</button>
      <button type="button" class="pill" data-testid="buyer-data-forget" onClick=${() => ask(true)}>${t("buyer_data.forget")}</button>
    </div>
    <${Trouble} refusal=${load.refusal} />
    ${sure &&
    html`<${Dialog} title=${t("buyer_data.title")} onClose=${() => ask(false)} closeLabel=${t("close")} testid="buyer-data-ask" busy=${work.busy}>
      <p>${t("buyer_data.text")}</p>
      ${underWay
        ? html`<p class="trouble" role="alert" data-testid="buyer-data-under-way"><span>${t("buyer_data.under_way")}</span></p>`
        : html`<${Trouble} refusal=${work.refusal} testid="dialog-trouble" />`}
      ${(underWay || force) &&
      html`<label class="tick">
        <input type="checkbox" checked=${force} data-testid="buyer-data-force" onChange=${() => setForce(!force)} />
        <span>${t("buyer_data.force")}</span>
      </label>`}
      <button type="button" class="primary danger-fill" disabled=${work.busy || (underWay && !force)} data-testid="buyer-data-confirm" onClick=${forget}>${t("buyer_data.forget_do")}</button>
    <//>`}`;
}
