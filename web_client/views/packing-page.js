/** What is to be packed for a show: a list to print, parcel by parcel, oldest order first. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as api from "../api.js";
import * as desk from "../api-desk.js";
import { addressLines } from "../countries.js";
import { formatDate } from "../money.js";
import { save } from "../save.js";
import { Icon } from "./icon.js";
import { shortId } from "./hold-sheet.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";

/** Pages that are read for one print; more is a list for a machine, and there is the CSV. */
const PAGES_MAX = 20;

/** @param {{who: any, show: string}} props */
export function PackingPage({ who, show }) {
  const { t, language } = useSpeech();
  const [parcels, setParcels] = useState(/** @type {any[] | null} */ (null));
  const [more, setMore] = useState(false);
  const [title, setTitle] = useState("");
  const work = useWork();
  const look = () =>
    work.run(async () => {
      /** @type {any[]} */
      const all = [];
      let after = null;
      for (let n = 0; n < PAGES_MAX && (n === 0 || after); n += 1) {
        const page = await desk.packingList(who.token, show, after);
        all.push(...page.parcels);
        after = page.next;
      }
      setMore(after !== null);
      setParcels(all);
    });
  useEffect(() => {
    void look();
    void api.show(show).then((found) => setTitle(found.title), () => {});
  }, [show]);
  return html`
    <section class="panel packing" data-testid="packing-page">
      <header class="panel-head">
        <h2>${t("packing.of", { title })}</h2>
        <span class="head-buttons no-print">
          <a class="chip-button chip-line" href=${`#orders&of=${encodeURIComponent(show)}`}><${Icon} name="back" /> ${t("orders")}</a>
          <button type="button" class="chip-button chip-line" disabled=${work.busy} title=${t("packing.csv")} aria-label=${t("packing.csv")} data-testid="packing-csv" onClick=${() => work.run(async () => save(await desk.packingFile(who.token, show), "packing-list.csv"))}>${t("desk.csv")}</button>
          <button type="button" class="chip-button chip-line" disabled=${!parcels?.length} data-testid="packing-print" onClick=${() => globalThis.print()}>${t("packing.print")}</button>
        </span>
      </header>
      <${Trouble} refusal=${work.refusal} onAgain=${look} />
      ${parcels?.length === 0 && html`<p class="empty">${t("packing.empty")}</p>`}
      <ol class="parcels">
        ${(parcels ?? []).map(
          (parcel) => html`<li key=${parcel.order} class="parcel" data-testid="parcel" data-order=${parcel.order}>
            <div>
              <p class="parcel-head">${shortId(parcel.order)} <small>${formatDate(parcel.placed_at, language)}</small></p>
              <ul>
                ${parcel.lines.map(
                  (/** @type {any} */ line) => html`<li key=${line.position} class="parcel-line"><span class="parcel-box" aria-hidden="true"></span><b>${line.quantity} ×</b> <span>${line.title || line.sku} <small>${line.sku}</small></span></li>`,
                )}
              </ul>
            </div>
            <address class="customer">
              ${parcel.customer
                ? html`<b>${parcel.customer.name}</b>
                    ${addressLines(parcel.customer.address, language).map((line) => html`<span key=${line}>${line}</span>`)}
                    ${parcel.customer.phone && html`<span>${parcel.customer.phone}</span>`}`
                : t("desk.no_customer")}
            </address>
          </li>`,
        )}
      </ol>
      ${more && html`<p class="hint">${t("packing.more")}</p>`}
    </section>
  `;
}
