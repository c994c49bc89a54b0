/**
 * The page's language: texts by key, values put in, plurals by Intl.
 *
 * Responsible for choosing a language, loading its texts and saying refusals as sentences. Texts
 * live in i18n/<language>.json; a test holds the files to the same keys and to the server's table
 * of codes. Values are put in as text only: nothing here makes HTML.
 *
 * `name_one` and `name_other` are plural forms of `name`, chosen by the value `n`. `code.x.more…`
 * are longer sentences of code x; the first one whose values all came with the refusal is used.
 */

import * as storage from "./storage.js";

/** Languages offered, with their own names. */
export const LANGUAGES = Object.freeze({ en: "English", zh: "中文" });
const FALLBACK = "en";

/** @typedef {Record<string, string>} Texts */
/** @typedef {(key: string, values?: Record<string, unknown>) => string} Translate */

/**
 * @param {readonly string[]} wanted
 * @param {string | null} kept
 */
export function chooseLanguage(wanted, kept) {
  for (const code of [kept, ...wanted]) {
    const short = (code ?? "").toLowerCase().split("-")[0];
    if (short in LANGUAGES) return short;
  }
  return FALLBACK;
}

/**
 * @param {Texts} texts
 * @param {string} language
 * @returns {Translate}
 */
export function translator(texts, language) {
  const plural = new Intl.PluralRules(language);
  const numbers = new Intl.NumberFormat(language);
  return (key, values = {}) => {
    const form = typeof values.n === "number" ? texts[`${key}_${plural.select(values.n)}`] : undefined;
    const text = form ?? texts[`${key}_other`] ?? texts[key];
    if (text === undefined) return key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      if (value === undefined || value === null) return whole;
      return typeof value === "number" ? numbers.format(value) : String(value);
    });
  };
}

/**
 * A refusal as a sentence in the page's language.
 * @param {Texts} texts
 * @param {Translate} t
 * @param {import("./refusal.js").Refusal} refusal
 */
export function sentence(texts, t, refusal) {
  const key = `code.${refusal.code}`;
  const values = Object.fromEntries(
    Object.entries(refusal.details).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(", ") : value,
    ]),
  );
  const nothingLeft = typeof values.left === "number" && values.left <= 0;
  for (const longer of Object.keys(texts).filter((one) => one.startsWith(`${key}.more`))) {
    const names = [...texts[longer].matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
    if (!nothingLeft && names.every((name) => usable(values[name]))) return t(longer, values);
  }
  return texts[key] === undefined ? refusal.message : t(key);
}

/** @param {unknown} value */
function usable(value) {
  return typeof value === "number" || (typeof value === "string" && value !== "");
}

/**
 * @param {string} language
 * @returns {Promise<Texts>}
 */
export async function loadTexts(language) {
  const response = await fetch(new URL(`./i18n/${language}.json`, import.meta.url));
  if (!response.ok) throw new Error(`texts of ${language}: ${response.status}`);
  return response.json();
}

/**
 * Chooses the language of this visit, loads it and marks the document.
 * @param {string} [chosen] what somebody just picked
 * @returns {Promise<{language: string, texts: Texts, t: Translate, say: (refusal: any) => string}>}
 */
export async function speak(chosen) {
  if (chosen) storage.keepLanguage(chosen);
  const language = chooseLanguage(navigator.languages ?? [], chosen ?? storage.language());
  const texts = await loadTexts(language);
  const t = translator(texts, language);
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
  return { language, texts, t, say: (refusal) => sentence(texts, t, refusal) };
}
