/**
 * The command in one file, `dist/nodepass.cjs`, and the code cache beside it: what V8 compiled when the build ran it once.
 * With the cache a start takes two thirds of the time. V8 ignores a cache that another version of Node made.
 */
import { existsSync, readFileSync } from "node:fs"
import Module, { createRequire } from "node:module"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import { Script } from "node:vm"

const file = fileURLToPath(new URL("../dist/nodepass.cjs", import.meta.url))

/** Where the build writes the cache. */
export const cacheFile = `${file}.cache`

/** Runs the command, and returns the script that it is. Without a build there is nothing to run, and the process ends. */
export const runBundle = () => {
  if (!existsSync(file)) {
    console.error("nodepass: dist/ is missing; npm run build makes it")
    process.exit(1)
  }
  const cachedData = read(cacheFile)
  const script = new Script(Module.wrap(readFileSync(file, "utf8")), {
    filename: file,
    ...(cachedData && { cachedData })
  })
  const bundle = { exports: {} }
  script.runInThisContext()(bundle.exports, createRequire(file), bundle, file, dirname(file))
  return script
}

/** @param {string} path */
const read = (path) => {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}
