// The pages obey the content security policy they are served with, and name only files that exist.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import test from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const folder = fileURLToPath(new URL("../../web_client/", import.meta.url));
const pages = readdirSync(folder).filter((name) => name.endsWith(".html"));

/** @returns {string[]} our own modules */
function modules(at = folder) {
  return readdirSync(at).flatMap((name) => {
    const path = join(at, name);
    if (statSync(path).isDirectory()) return name === "vendor" || name === "media" ? [] : modules(path);
    return name.endsWith(".js") ? [path] : [];
  });
}

test("pages carry no inline script, style or handler", () => {
  assert.ok(pages.length >= 3);
  for (const page of pages) {
    const text = readFileSync(join(folder, page), "utf8");
    assert.doesNotMatch(text, /<script(?![^>]*\ssrc=)/, page);
    assert.doesNotMatch(text, /<style|\sstyle=|\son[a-z]+=/, page);
  }
});

test("pages name only files that are there", () => {
  for (const page of pages) {
    const text = readFileSync(join(folder, page), "utf8");
    for (const [, path] of text.matchAll(/(?:src|href)="\/static\/([^"]+)"/g)) {
      assert.ok(existsSync(join(folder, path)), `${page}: ${path}`);
    }
  }
});

test("modules import relative paths that are there: no bare names, no other hosts", () => {
  for (const path of modules()) {
    const text = readFileSync(path, "utf8");
    const found = [...text.matchAll(/^(?:import|export)\s[^;]*?from "([^"]+)";|\bimport\("([^"]+)"\)/gm)].map(
      (match) => match[1] ?? match[2],
    );
    for (const name of found) {
      assert.match(name, /^\.\.?\//, `${path}: ${name}`);
      assert.ok(existsSync(resolve(dirname(path), name)), `${path}: ${name}`);
    }
  }
});

test("every module is read by an engine; the pages' own roots begin at once and are only parsed", async () => {
  for (const path of modules()) {
    if (/\/main-\w+\.js$/.test(path)) execFileSync(process.execPath, ["--check", path]);
    else await import(pathToFileURL(path).href);
  }
});

test("views set no style by a string and no HTML", () => {
  for (const path of modules()) {
    const text = readFileSync(path, "utf8");
    assert.doesNotMatch(text, /\sstyle="|innerHTML|dangerouslySetInnerHTML|\beval\(|new Function/, path);
  }
});

test("the demo video is small, complete and says how long it is", () => {
  const demo = join(folder, "media", "demo");
  const loop = JSON.parse(readFileSync(join(demo, "loop.json"), "utf8"));
  const names = [loop.init, ...loop.segments.map((/** @type {any} */ one) => one.name)];
  const bytes = names.reduce((sum, name) => sum + statSync(join(demo, name)).size, 0);
  assert.ok(bytes < 700_000, String(bytes));
  for (const { name, duration } of loop.segments) {
    assert.equal(fragmentDuration(readFileSync(join(demo, name)), readFileSync(join(demo, loop.init))), duration, name);
  }
});

/**
 * Seconds of video in a fragment, from its trun boxes.
 * @param {Buffer} fragment
 * @param {Buffer} init
 */
function fragmentDuration(fragment, init) {
  const mdhd = init.indexOf("mdhd");
  const timescale = init.readUInt32BE(mdhd + 4 + 12);
  const tfhd = fragment.indexOf("tfhd");
  const tfhdFlags = fragment.readUInt32BE(tfhd + 4) & 0xffffff;
  let at = tfhd + 12;
  if (tfhdFlags & 0x1) at += 8;
  if (tfhdFlags & 0x2) at += 4;
  const usual = tfhdFlags & 0x8 ? fragment.readUInt32BE(at) : 0;
  let ticks = 0;
  for (let trun = fragment.indexOf("trun"); trun >= 0; trun = fragment.indexOf("trun", trun + 4)) {
    const flags = fragment.readUInt32BE(trun + 4) & 0xffffff;
    const count = fragment.readUInt32BE(trun + 8);
    let offset = trun + 12 + (flags & 0x1 ? 4 : 0) + (flags & 0x4 ? 4 : 0);
    for (let i = 0; i < count; i += 1) {
      ticks += flags & 0x100 ? fragment.readUInt32BE(offset) : usual;
      offset += 4 * [0x100, 0x200, 0x400, 0x800].filter((bit) => flags & bit).length;
    }
  }
  return ticks / timescale;
}
