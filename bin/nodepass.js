#!/usr/bin/env node
// `ps` shows the arguments, which may contain a key, until the title replaces them. So that comes before anything else.
process.title = "nodepass"

import { readFileSync, writeSync } from "node:fs"
import { isatty } from "node:tty"

// By default SIGHUP and SIGUSR2 end the process, and SIGUSR1 opens a port for debuggers. The command has listeners of its
// own once it is loaded, which takes half a second.
const terminals = [0, 1, 2].filter((fd) => isatty(fd))
/** @type {Array<NodeJS.Signals>} */
const early = []
/** @param {NodeJS.Signals} signal */
const remember = (signal) => {
  early.push(signal)
  endWithoutTerminal()
}
/** The terminal is gone before anything is open: SIGHUP does what it does by default. */
const endWithoutTerminal = () => {
  if (terminals.every((fd) => isatty(fd))) return
  process.removeAllListeners("SIGHUP")
  process.kill(process.pid, "SIGHUP")
}
/** @type {ReadonlyArray<NodeJS.Signals>} */
const signals = ["SIGHUP", "SIGUSR1", "SIGUSR2"]
for (const signal of signals) process.on(signal, remember)

const [, , first, ...rest] = process.argv
if ((first === "--version" || first === "-v") && rest.length === 0) {
  // The version is answered before anything is loaded.
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
  try {
    writeSync(1, `${version}\n`)
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : error
    const reason = code === "ENOSPC" ? "no space left on the device" : String(code)
    if (code !== "EPIPE") console.error(`nodepass: standard output: ${reason}`)
    process.exitCode = 1
  }
  for (const signal of signals) process.off(signal, remember)
} else {
  const { runBundle } = await import("./bundle.js")
  runBundle()
  for (const signal of signals) process.off(signal, remember)
  endWithoutTerminal()
  for (const signal of early) process.emit(signal, signal)
}
