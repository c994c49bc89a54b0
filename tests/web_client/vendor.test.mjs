// The vendored libraries are the published files: every one is listed, and every sum is right.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../../web_client/vendor/", import.meta.url));

/** @returns {string[]} */
function files(at = folder) {
  return readdirSync(at).flatMap((name) => {
    const path = join(at, name);
    return statSync(path).isDirectory() ? files(path) : [relative(folder, path)];
  });
}

const sums = new Map(
  readFileSync(join(folder, "SHA256SUMS"), "utf8")
    .trim()
    .split("\n")
    .map((line) => /** @type {[string, string]} */ (line.split(/\s+\.\//).reverse())),
);

test("every vendored file is listed with its checksum, and nothing else is", () => {
  assert.deepEqual([...sums.keys()].sort(), files().filter((name) => name !== "SHA256SUMS").sort());
});

test("every vendored file has the checksum that is listed", () => {
  for (const [name, sum] of sums) {
    const found = createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");
    assert.equal(found, sum, name);
  }
});

test("every library comes with its licence and is named with its version", () => {
  const readme = readFileSync(join(folder, "README.md"), "utf8");
  for (const name of readdirSync(folder).filter((one) => statSync(join(folder, one)).isDirectory())) {
    assert.ok(files().some((file) => file.startsWith(`${name}/LICENSE`)), `${name} has a licence`);
    assert.match(readme, new RegExp(`\`${name}/\` .*\\d+\\.\\d+\\.\\d+`), name);
  }
});
