// Writes dist/BUILD.json: a hash of the sources, which a Rust test recomputes,
// so that a page older than its sources is seen.
//
// SHA-256 over, for each file in order of its path: path, 0, length in decimal, 0, bytes.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const files = ["index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"];
for (const entry of readdirSync("src", { recursive: true, withFileTypes: true })) {
  if (entry.isFile()) files.push(`${entry.parentPath}/${entry.name}`);
}
files.sort((a, b) => (a < b ? -1 : 1));
const hash = createHash("sha256");
for (const file of files) {
  const bytes = readFileSync(file);
  hash.update(`${file}\0${bytes.length}\0`).update(bytes);
}
writeFileSync("dist/BUILD.json", `${JSON.stringify({ sources: hash.digest("hex") })}\n`);
