#!/usr/bin/env node
// The version is answered before anything is loaded.
import { readFileSync } from "node:fs"

const [, , first, ...rest] = process.argv
if ((first === "--version" || first === "-v") && rest.length === 0) {
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
  process.stdout.write(`${version}\n`)
} else {
  await import("../dist/nodepass.js")
}
