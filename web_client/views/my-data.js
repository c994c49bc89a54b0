/** What the shop holds about this viewer: a copy to take along, and being forgotten. */

import { html, useState } from "../vendor/preact-htm/standalone.module.js";
import * as desk from "../api-desk.js";
import { save } from "../save.js";
import * as storage from "../storage.js";
import { useOnce } from "./order-dialogs.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** @param {{token: string}} props */
export function MyData({ token }) {
  const { t } = useSpeech();
  const once = useOnce();
  const work = useWork();
  const [sure, ask] = useState(false);
  const [gone, setGone] = useState(false);
  const take = () =>
    work.run(async () => {
      const text = JSON.stringify(await desk.myData(token), null, 2);
      save(new Blob([text], { type: "application/json" }), "my-data.json");
    });
  const forget = () =>
    work.run(async () => {
      await desk.forgetMe(token, once.key("forget"));
      storage.keepDelivery(null);
      storage.keepGuest(null);
      setGone(true);
    });
  if (gone) {
    return html`<section class="my-data" role="status" data-testid="forgotten">
      <p>${t("my_data.gone")}</p>
      <button type="button" class="primary" onClick=${() => location.reload()}>${t("hold.back_to_show")}</button>
    </section>`;
  }
  return html`<details class="my-data" data-testid="my-data">
    <summary>${t("my_data")}</summary>
    <p class="hint">${t("my_data.hint")}</p>
    <div class="order-actions">
      <button type="button" class="pill" disabled=${work.busy} data-testid="my-data-take" onClick=${take}>${t("my_data.take")}</button>
      ${!sure && html`<button type="button" class="pill" disabled=${work.busy} data-testid="my-data-forget" onClick=${() => ask(true)}>${t("my_data.forget")}</button>`}
    </div>
    ${sure &&
    html`<div role="group" aria-label=${t("my_data.forget")}>
      <p>${t("my_data.sure")}</p>
      <div class="order-actions">
        <button type="button" class="pill danger" disabled=${work.busy} data-testid="my-data-confirm" onClick=${forget}>${t("my_data.forget_do")}</button>
        <button type="button" class="pill" disabled=${work.busy} onClick=${() => ask(false)}>${t("my.not_now")}</button>
      </div>
    </div>`}
    <${Trouble} refusal=${work.refusal} testid="my-data-trouble" />
  </details>`;
}
