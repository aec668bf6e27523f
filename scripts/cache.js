/**
 * Writes the code cache of the command: runs `nodepass check` once and keeps what V8 has compiled by its end.
 */
import { writeFileSync } from "node:fs"
import { cacheFile, runBundle } from "../bin/bundle.js"

process.argv.push("check", "server://key@:10101/:8080")
const script = runBundle()
process.on("exit", () => writeFileSync(cacheFile, script.createCachedData()))
