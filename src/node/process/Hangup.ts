/**
 * SIGHUP: a request to read files again or, when the terminal of the process has hung up, a graceful stop.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { closeSync, openSync } from "node:fs"
import { devNull } from "node:os"
import process from "node:process"
import { isatty } from "node:tty"

/** Emits on each request, and at once if there was one since this module was loaded. For one reader at a time. */
export const reloads: Stream.Stream<void> = Stream.asyncPush<void>((emit) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      request = () => emit.single(undefined)
      if (isPending) request()
      isPending = false
    }),
    () => Effect.sync(() => (request = postpone))
  )
)

/** Logs each request, because there is nothing to read again. */
export const log: Effect.Effect<void> = Stream.runForEach(reloads, () =>
  Effect.logInfo("SIGHUP: there is nothing to read again; a tunnel with --key-file reads its key")
)

// internal

let isPending = false
const postpone = () => (isPending = true)
let request: () => unknown = postpone

/** Terminals among the standard streams when the process started. */
let terminals = [0, 1, 2].filter((fd) => isatty(fd))

let isStopping = false

process.on("SIGHUP", () => {
  // After a hang-up tcgetattr(3) fails on the terminal.
  if (release()) {
    // Once: the kernel and the shell send a SIGHUP each.
    if (!isStopping) process.kill(process.pid, "SIGTERM")
    isStopping = true
  } else if (!isStopping) request()
})

process.on("exit", () => release())

/**
 * Puts the null device in place of terminals that have hung up, and returns whether there were any. Node resets the mode of
 * the terminals that it started with at its end, and aborts if it cannot; it leaves other files alone.
 */
const release = (): boolean => {
  const hungUp = terminals.filter((fd) => !isatty(fd))
  terminals = terminals.filter((fd) => !hungUp.includes(fd))
  for (const fd of hungUp) {
    closeSync(fd)
    // Gets the lowest number that is free, which is this one.
    openSync(devNull, "r+")
  }
  return hungUp.length > 0
}

// Without a listener SIGUSR1 opens a port for debuggers, and SIGUSR2 ends the process.
process.on("SIGUSR1", () => {})
process.on("SIGUSR2", () => {})
