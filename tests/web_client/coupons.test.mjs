// Coupons: a code as it is typed, why one is refused, what a host may put into the form.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { REASONS, codeOf, couponOf, couponState, fieldTime, refusedBecause } from "../../web_client/coupons.js";
import { Refusal } from "../../web_client/refusal.js";

const root = new URL("../../", import.meta.url);
const read = (/** @type {string} */ path) => readFileSync(new URL(path, root), "utf8");
const typed = { code: "ten", title: " Ten ", kind: "percent", value: "10", uses: "5", ends: "" };
const coupon = { code: "TEN", title: "Ten", percent_bp: 1000, amount: null, uses_max: 2, used: 1, ends_at: null };

test("every reason of the server has a sentence in every language", () => {
  const raised = read("commerce/errors.py").match(/class CouponRefused[^"]*"""`reason`: ([^"]*)"""/)?.[1] ?? "";
  for (const reason of REASONS) assert.match(raised, new RegExp(`\\b${reason}\\b`));
  const words = read("commerce/coupons_sql.py") + read("commerce/pricing_sql.py");
  for (const reason of REASONS) assert.ok(words.includes(`"${reason}"`), reason);
  for (const language of ["en", "zh"]) {
    const texts = JSON.parse(read(`web_client/i18n/${language}.json`));
    const sentences = [...REASONS, "other"].map((reason) => texts[`coupon.refused.${reason}`]);
    assert.equal(new Set(sentences).size, REASONS.length + 1);
    assert.ok(sentences.every(Boolean), language);
    for (const why of ["code", "known", "title", "value", "uses", "fewer", "ends"]) {
      assert.ok(texts[`coupons.wrong.${why}`], `${language}: ${why}`);
    }
    for (const state of ["ended", "used_up"]) assert.ok(texts[`coupons.state.${state}`], `${language}: ${state}`);
  }
});

test("a refusal is the code's only if it is about the code", () => {
  const because = (/** @type {string} */ code, /** @type {any} */ details) => refusedBecause(new Refusal(code, "", { details }));
  assert.equal(refusedBecause(null), "");
  assert.equal(because("coupon_refused", { reason: "ended" }), "ended");
  assert.equal(because("coupon_refused", { reason: "a_reason_of_tomorrow" }), "other");
  assert.equal(because("coupon_refused", {}), "other");
  assert.equal(because("bad_params", { field: "coupon" }), "unknown");
  assert.equal(because("bad_params", { field: "email" }), "");
  assert.equal(because("hold_ended", {}), "");
});

test("a code is sent as the server spells it, however it was typed", () => {
  assert.equal(codeOf(" ten_off-1 "), "TEN_OFF-1");
  assert.equal(codeOf("  "), "");
});

test("a coupon ends at its instant, and is used up by its last use", () => {
  assert.equal(couponState(coupon, 5), "open");
  assert.equal(couponState({ ...coupon, used: 2 }, 5), "used_up");
  assert.equal(couponState({ ...coupon, ends_at: 6 }, 5), "open");
  assert.equal(couponState({ ...coupon, ends_at: 5, used: 2 }, 5), "ended");
});

test("what a host typed becomes the body of the request", () => {
  assert.deepEqual(couponOf(typed, 2), {
    code: "TEN", body: { title: "Ten", percent_bp: 1000, uses_max: 5, ends_at: null }, wrong: "",
  });
  const { body } = couponOf({ ...typed, kind: "amount", value: "3,50", uses: "0", ends: "2026-11-30T18:00" }, 2);
  assert.deepEqual(body, { title: "Ten", amount: 350, uses_max: 0, ends_at: new Date(2026, 10, 30, 18).getTime() });
});

test("what is wrong in the form is said by its field", () => {
  const wrong = (/** @type {any} */ more) => couponOf({ ...typed, ...more }, 2).wrong;
  for (const code of ["", "ten off", "zehn%", "x".repeat(41)]) assert.equal(wrong({ code }), "code", code);
  assert.equal(wrong({ title: "  " }), "title");
  for (const value of ["", "0", "100.5", "a"]) assert.equal(wrong({ value }), "value", value);
  for (const uses of ["", "-1", "1.5", "9".repeat(17)]) assert.equal(wrong({ uses }), "uses", uses);
  for (const ends of ["?", "1969-01-01T00:00"]) assert.equal(wrong({ ends }), "ends", ends);
});

test("an end is read back as it stands in the field", () => {
  assert.equal(fieldTime(null), "");
  for (const at of ["2026-11-30T18:00", "2026-07-01T00:05"]) assert.equal(fieldTime(new Date(at).getTime()), at);
});
