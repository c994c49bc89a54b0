// Both languages say everything: the same keys, every key that a view uses, every code of the server.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import test from "node:test";
import { LANGUAGES, chooseLanguage, sentence, translator } from "../../web_client/i18n.js";
import { PAGE_CODES, Refusal, TEMPORARY } from "../../web_client/refusal.js";

const client = new URL("../../web_client/", import.meta.url);
const read = (/** @type {string} */ path) => readFileSync(new URL(path, client), "utf8");
/** @type {Record<string, Record<string, string>>} */
const texts = Object.fromEntries(
  Object.keys(LANGUAGES).map((code) => [code, JSON.parse(read(`i18n/${code}.json`))]),
);
const table = readFileSync(new URL("../../live/codes.py", import.meta.url), "utf8");
const codes = [...table.matchAll(/^\s+"([a-z_]+)": Code\(\s*\d+, (True|False)/gm)];

test("all languages have the same keys", () => {
  const keys = Object.keys(texts.en).sort();
  for (const [language, found] of Object.entries(texts)) {
    assert.deepEqual(Object.keys(found).sort(), keys, language);
  }
});

test("no text is empty, and all languages put in the same values", () => {
  for (const [key, english] of Object.entries(texts.en)) {
    const names = (/** @type {string} */ text) => [...text.matchAll(/\{(\w+)\}/g)].map((one) => one[1]).sort();
    for (const [language, found] of Object.entries(texts)) {
      assert.ok(found[key].trim(), `${language} ${key}`);
      assert.deepEqual(new Set(names(found[key])), new Set(names(english)), `${language} ${key}`);
    }
  }
});

test("every code of the server and of the page has a sentence", () => {
  assert.ok(codes.length > 50);
  for (const code of [...codes.map((match) => match[1]), ...PAGE_CODES]) {
    assert.ok(texts.en[`code.${code}`], code);
  }
});

test("the page knows which codes are temporary as the server does", () => {
  for (const [, code, temporary] of codes) {
    assert.equal(TEMPORARY.has(code), temporary === "True", code);
  }
});

test("every key that a module uses exists", () => {
  const files = ["", "views/"].flatMap((folder) =>
    readdirSync(new URL(folder || ".", client))
      .filter((name) => name.endsWith(".js"))
      .map((name) => folder + name),
  );
  let seen = 0;
  for (const file of files) {
    for (const [, key] of read(file).matchAll(/\bt\(\s*"([^"]+)"/g)) {
      seen += 1;
      assert.ok(texts.en[key] ?? texts.en[`${key}_other`], `${file}: ${key}`);
    }
  }
  assert.ok(seen > 100);
});

test("values are put in, and plurals chosen by the language", () => {
  const t = translator({ a_one: "{n} bowl", a_other: "{n} bowls", b: "Hello {name}, {missing}" }, "en");
  assert.equal(t("a", { n: 1 }), "1 bowl");
  assert.equal(t("a", { n: 1200 }), "1,200 bowls");
  assert.equal(t("b", { name: "Ada" }), "Hello Ada, {missing}");
  assert.equal(t("nothing"), "nothing");
  assert.equal(translator(texts.zh, "zh")("stock.left", { n: 7 }), "剩余 7 件");
});

test("a refusal is said with its details when all of them came", () => {
  const t = translator(texts.en, "en");
  const say = (/** @type {any[]} */ ...args) => sentence(texts.en, t, new Refusal(...args));
  assert.equal(say("sold_out", "", { details: { sku: "A", left: 2 } }), "Not enough left: only 2.");
  assert.equal(say("sold_out", "", { details: { sku: "A", left: 0 } }), texts.en["code.sold_out"]);
  assert.equal(say("sold_out"), texts.en["code.sold_out"]);
  assert.match(say("csv_columns", "", { details: { missing: ["Handle", "Title"] } }), /Handle, Title/);
  assert.equal(say("a_code_of_tomorrow", "Said by the server."), "Said by the server.");
});

test("the language is what was chosen, then what the browser asks for, then English", () => {
  assert.equal(chooseLanguage(["zh-CN", "en"], null), "zh");
  assert.equal(chooseLanguage(["zh-CN"], "en"), "en");
  assert.equal(chooseLanguage(["fr-FR", "en-GB"], null), "en");
  assert.equal(chooseLanguage([], "xx"), "en");
});
