/** The shop's other systems: where events go, how that fares, and sending them again. */

import { html, useEffect, useState } from "../vendor/preact-htm/standalone.module.js";
import * as hooks from "../api-webhooks.js";
import { formatDate } from "../money.js";
import { Dialog } from "./dialog.js";
import { useOnce } from "./order-dialogs.js";
import { useSpeech } from "./speech.js";
import { Trouble, useWork } from "./work.js";
import { Deliveries } from "./webhook-deliveries.js";

/** How often the health is asked for, milliseconds. */
const LOOK_MS = 5_000;

/** @param {{who: any}} props */
export function WebhooksPage({ who }) {
  const { t } = useSpeech();
  const [found, setFound] = useState(/** @type {any} */ (null));
  const work = useWork();
  const look = () => work.run(async () => setFound(await hooks.list(who.token)));
  useEffect(() => {
    void look();
    const timer = setInterval(() => document.hidden || void look(), LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<div class="host-home-grid" data-testid="webhooks-page">
    <section class="panel">
      <h2>${t("hooks")}</h2>
      <p class="hint">${t("hooks.hint")}</p>
      <${Trouble} refusal=${work.refusal} onAgain=${look} />
      ${found?.endpoints.length === 0 && html`<p class="empty">${t("hooks.empty")}</p>`}
      <ul class="hooks" data-testid="webhooks">
        ${(found?.endpoints ?? []).map((/** @type {any} */ one) => html`<${Endpoint} key=${one.id} token=${who.token} endpoint=${one} onChanged=${look} />`)}
      </ul>
    </section>
    <div class="stack"><${AddForm} token=${who.token} types=${found?.types ?? []} onAdded=${look} /></div>
  </div>`;
}

/** @param {{token: string, types: string[], onAdded: () => void}} props */
function AddForm({ token, types, onAdded }) {
  const { t } = useSpeech();
  const once = useOnce();
  const [chosen, choose] = useState(/** @type {string[]} */ ([]));
  const work = useWork();
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    const body = { url: String(new FormData(form).get("url")).trim(), types: chosen };
    void work.run(async () => {
      await hooks.add(token, body, once.key(body));
      once.done();
      form.reset();
      choose([]);
      onAdded();
    });
  };
  const flip = (/** @type {string} */ type) => choose(chosen.includes(type) ? chosen.filter((one) => one !== type) : [...chosen, type]);
  return html`<section class="panel">
    <h2>${t("hooks.add")}</h2>
    <form class="fields" onSubmit=${submit} data-testid="webhook-add">
      <label class="field">
        <span>${t("hooks.url")}</span>
        <input name="url" type="url" required maxlength="1024" placeholder="https://" data-testid="webhook-url" />
      </label>
      <fieldset class="choices field">
        <legend>${t("hooks.types")}</legend>
        ${types.map(
          (type) => html`<label key=${type} class="tick">
            <input type="checkbox" checked=${chosen.includes(type)} data-testid=${`type-${type}`} onChange=${() => flip(type)} />
            <span>${t(`hooks.type.${type}`)} <small>${type}</small></span>
          </label>`,
        )}
      </fieldset>
      <${Trouble} refusal=${work.refusal} testid="webhook-trouble" />
      <button type="submit" class="primary" disabled=${work.busy} data-testid="webhook-add-submit">${t("hooks.add_do")}</button>
    </form>
  </section>`;
}

/** @param {{token: string, endpoint: any, onChanged: () => void}} props */
function Endpoint({ token, endpoint, onChanged }) {
  const { t, language } = useSpeech();
  const once = useOnce();
  const [secret, setSecret] = useState("");
  const [said, say] = useState("");
  const [open, setOpen] = useState(false);
  const [asking, ask] = useState(/** @type {"" | "remove" | "rotate"} */ (""));
  const work = useWork();
  const health = endpoint.stopped ?? (endpoint.dead > 0 ? "dead" : endpoint.pending > 0 ? "pending" : "well");
  const run = (/** @type {() => Promise<string>} */ task) => {
    say("");
    return work.run(async () => {
      say(await task());
      onChanged();
    });
  };
  const copy = () => run(async () => {
    await navigator.clipboard.writeText(secret);
    return t("hooks.copied");
  });
  const rotate = () => run(async () => {
    setSecret(await hooks.rotate(token, endpoint.id, once.key(["rotate", endpoint.rotated_at])));
    return t("hooks.rotated");
  });
  const resend = () => run(async () => t("hooks.replayed", { n: await hooks.replay(token, endpoint.id, null) }));
  return html`<li class="hook" data-testid="webhook" data-health=${health} data-id=${endpoint.id}>
    <p class="hook-url">${endpoint.url}</p>
    <p class=${`hook-health hook-${health}`}>
      <span class="light-dot" aria-hidden="true"></span>
      <b>${t(`hooks.health.${health}`)}</b>
      <span data-testid="webhook-counts">${t("hooks.counts", { pending: endpoint.pending, dead: endpoint.dead })}</span>
      ${endpoint.delivered_at && html`<span>${t("hooks.delivered", { time: formatDate(endpoint.delivered_at, language) })}</span>`}
    </p>
    <p class="hint">${endpoint.types.length === 0 ? t("hooks.all_types") : endpoint.types.map((/** @type {string} */ type) => t(`hooks.type.${type}`)).join(", ")}</p>
    <div class="order-actions">
      <button type="button" class="pill" disabled=${work.busy} data-testid="webhook-test" onClick=${() => run(async () => (await hooks.test(token, endpoint.id), t("hooks.tested")))}>${t("hooks.test")}</button>
      <button type="button" class="pill" disabled=${work.busy} data-testid="webhook-pause" onClick=${() => run(async () => (await hooks.change(token, endpoint.id, { paused: !endpoint.stopped }), ""))}>
        ${t(endpoint.stopped ? "hooks.resume" : "hooks.pause")}
      </button>
      <button type="button" class="pill" aria-expanded=${secret ? "true" : "false"} disabled=${work.busy} data-testid="webhook-secret" onClick=${() => (secret ? setSecret("") : run(async () => (setSecret(await hooks.secret(token, endpoint.id)), "")))}>
        ${t(secret ? "hooks.hide_secret" : "hooks.show_secret")}
      </button>
      <button type="button" class="pill" aria-expanded=${open ? "true" : "false"} data-testid="webhook-deliveries" onClick=${() => setOpen(!open)}>${t("hooks.deliveries")}</button>
      ${endpoint.dead > 0 && html`<button type="button" class="pill pill-strong" disabled=${work.busy} data-testid="webhook-replay-all" onClick=${resend}>${t("hooks.replay_all", { n: endpoint.dead })}</button>`}
      <button type="button" class="pill danger" disabled=${work.busy} data-testid="webhook-remove" onClick=${() => ask("remove")}>${t("hooks.remove")}</button>
    </div>
    ${secret &&
    html`<div class="hook-secret">
      <code data-testid="webhook-secret-text">${secret}</code>
      <button type="button" class="link-button" data-testid="webhook-copy" onClick=${copy}>${t("hooks.copy")}</button>
      <button type="button" class="link-button" disabled=${work.busy} data-testid="webhook-rotate" onClick=${() => ask("rotate")}>${t("hooks.rotate")}</button>
    </div>`}
    <p class="hint" role="status" data-testid="webhook-said">${said}</p>
    <${Trouble} refusal=${work.refusal} />
    ${open && html`<${Deliveries} token=${token} endpoint=${endpoint} />`}
    ${asking &&
    html`<${Dialog} title=${t(`hooks.${asking}_title`)} onClose=${() => ask("")} closeLabel=${t("close")} testid="webhook-ask">
      <p>${t(`hooks.${asking}_text`)}</p>
      <button
        type="button"
        class=${`primary ${asking === "remove" ? "danger-fill" : ""}`}
        data-testid="webhook-confirm"
        onClick=${() => {
          ask("");
          void (asking === "remove" ? run(async () => (await hooks.remove(token, endpoint.id), "")) : rotate());
        }}
      >
        ${t(`hooks.${asking}`)}
      </button>
    <//>`}
  </li>`;
}
