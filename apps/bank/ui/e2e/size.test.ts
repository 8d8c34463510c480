// What a first visit costs: the page and everything that it names, as sent.
import { readFileSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";

const LIMIT = 120_000;

it("loads at first no more than 120 kB", () => {
  const page = readFileSync("dist/index.html", "utf8");
  const assets = readdirSync("dist/assets");
  for (const asset of assets) expect(page, `${asset} is loaded later or by nobody`).toContain(asset);
  const files = ["index.html", ...assets.map((asset) => `assets/${asset}`)];
  const bytes = files.map((file) => gzipSync(readFileSync(`dist/${file}`)).length);
  expect(bytes.reduce((sum, n) => sum + n, 0)).toBeLessThan(LIMIT);
});
