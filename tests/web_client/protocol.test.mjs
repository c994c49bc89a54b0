// The page's codec and constants against the normative vectors.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import {
  BadFrame,
  backoffCeiling,
  decodeFrame,
  encodeCommand,
  newRid,
  reconnects,
} from "../../web_client/protocol.js";

const vectors = JSON.parse(
  readFileSync(new URL("../../live/protocol_vectors.json", import.meta.url), "utf8"),
);
const bytes = (/** @type {string} */ hex) => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (/** @type {Uint8Array} */ data) => Buffer.from(data).toString("hex");

for (const { name, hex: wanted, meaning } of vectors.commands) {
  test(`encodes: ${name}`, () => {
    assert.equal(hex(encodeCommand(meaning.id, meaning.name, meaning.params)), wanted);
  });
}

for (const { name, hex: sent, meaning } of vectors.pushes) {
  test(`decodes: ${name}`, () => assert.deepEqual(decodeFrame(bytes(sent)), [meaning]));
}

for (const { name, hex: sent, meaning } of vectors.frames) {
  test(`decodes a frame: ${name}`, () => assert.deepEqual(decodeFrame(bytes(sent)), meaning));
}

for (const { name, hex: sent } of vectors.refused_frames) {
  test(`refuses: ${name}`, () => assert.throws(() => decodeFrame(bytes(sent)), BadFrame));
}

test("every close code says whether to come back", () => {
  assert.ok(vectors.close_codes.length > 10);
  for (const { code, reconnect, why } of vectors.close_codes) {
    assert.equal(reconnects(code), reconnect, `${code} ${why}`);
  }
});

test("the back-off has the ceilings of the vectors", () => {
  for (const { attempt, ceiling_ms } of vectors.backoff) {
    assert.equal(backoffCeiling(attempt), ceiling_ms, String(attempt));
  }
});

test("a decoder is usable after a frame that it refused", () => {
  const [{ hex: good, meaning }] = vectors.frames;
  for (const { hex: bad } of vectors.refused_frames) {
    assert.throws(() => decodeFrame(bytes(bad)), BadFrame);
    assert.deepEqual(decodeFrame(bytes(good)), meaning);
  }
});

test("a rid is a UUIDv7 of its time, and the server's pattern takes it", () => {
  const rid = newRid(1_764_150_000_000, (into) => into.fill(0xff));
  assert.match(rid, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.match(rid, /^[A-Za-z0-9_-]{16,64}$/);
  assert.equal(Number.parseInt(rid.replace("-", "").slice(0, 12), 16), 1_764_150_000_000);
  assert.ok(newRid(1) < newRid(2));
});
