/**
 * `npm start`: the demo of the command, from a fresh clone on.
 *
 * The command runs in this process: it receives signals directly, and this process exits when it does. For the same reason
 * package.json uses `exec`: a shell that waits would end on Ctrl-C by itself, with an exit code of its own.
 */
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { build } from "./build.js"
import { install } from "./install.js"
import { root, run } from "./tool.js"

await run(async () => {
  install()
  await build()
  const command = join(root, "bin/nodepass.js")
  process.argv = [process.execPath, command, "demo", ...process.argv.slice(2)]
  await import(pathToFileURL(command).href)
})
