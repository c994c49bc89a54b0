/** The page's language, for every view below: `useSpeech()` gives t, say and the language. */

import {
  createContext,
  html,
  useContext,
  useState,
} from "../vendor/preact-htm/standalone.module.js";
import { LANGUAGES, speak } from "../i18n.js";
import { Icon } from "./icon.js";

/**
 * @typedef {object} Speech
 * @property {string} language
 * @property {import("../i18n.js").Texts} texts
 * @property {import("../i18n.js").Translate} t
 * @property {(refusal: any) => string} say
 * @property {(language: string) => void} choose
 */
const Context = createContext(/** @type {Speech} */ (/** @type {any} */ (null)));

/** @param {{first: any, children?: any}} props */
export function SpeechProvider({ first, children }) {
  const [speech, change] = useState(first);
  const choose = async (/** @type {string} */ language) => {
    try {
      change(await speak(language));
    } catch {
      // The texts could not be had: the page stays as it is.
    }
  };
  return html`<${Context.Provider} value=${{ ...speech, choose }}>${children}<//>`;
}

/** @returns {Speech} */
export const useSpeech = () => useContext(Context);

/** One button that goes to the other language; each is named in its own words. */
export function LanguageSwitch() {
  const { language, t, choose } = useSpeech();
  const names = Object.entries(LANGUAGES);
  const [next, name] = names[(names.findIndex(([code]) => code === language) + 1) % names.length];
  return html`
    <button
      type="button"
      class="chip-button"
      lang=${next}
      aria-label=${`${t("language")}: ${name}`}
      data-testid="language-switch"
      onClick=${() => choose(next)}
    >
      <${Icon} name="globe" />
      <span>${next === "zh" ? "中文" : "EN"}</span>
    </button>
  `;
}
