/**
 * `npm start`: the demo of the command, from a fresh clone on.
 *
 * The command runs in this process: signals reach it with nothing in between, and its end is ours. For the same reason
 * package.json says `exec`: a shell that waits would end on Ctrl-C by itself, with an exit code of its own.
 */
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { build } from "./build.js"
import { install } from "./install.js"
import { root, run } from "./tool.js"

/**
 * One Ctrl-C arrives twice: the terminal sends it to the whole group, and npm, being in it, sends it on. The command
 * hears the first; the second must not kill it while it closes. Whoever presses again after that means it.
 *
 * @param {"SIGINT" | "SIGTERM"} signal
 * @param {number} code
 */
const hearOnce = (signal, code) => {
  let first = Number.POSITIVE_INFINITY
  process.on(signal, () => {
    first = Math.min(first, performance.now())
    if (performance.now() - first > 500) process.exit(code)
  })
}

await run(async () => {
  install()
  await build()
  hearOnce("SIGINT", 130)
  hearOnce("SIGTERM", 143)
  const command = join(root, "bin/nodepass.js")
  process.argv = [process.execPath, command, "demo", ...process.argv.slice(2)]
  await import(pathToFileURL(command).href)
})
