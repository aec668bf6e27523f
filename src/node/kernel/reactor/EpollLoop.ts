/**
 * The loop of a relay thread: waits for events and commands, and serves them until it is stopped.
 */
import { type Libc, epoll, makeEvents } from "../ffi/Libc.js"
import type { OpenSsl } from "../tls/OpenSsl.js"
import type { Command } from "./ReactorMessages.js"
import type { WorkerEnd } from "./ReactorProtocol.js"
import * as SharedState from "./SharedState.js"
import * as WorkerExchanges from "./WorkerExchanges.js"

export interface Options {
  readonly libc: Libc
  /** Without it, no socket of an exchange has TLS. */
  readonly openSsl?: OpenSsl | undefined
  readonly sharedState: SharedState.SharedState
  /** An eventfd that is readable when commands came while this thread slept. */
  readonly workerWake: number
  readonly end: WorkerEnd
}

/** Serves until `StopWorker`, and blocks the thread. The loop opens its epoll and closes it at the end. */
export const run = ({ end, libc, openSsl, sharedState, workerWake }: Options): void => {
  const epollFd = openEpoll(libc, workerWake)
  sharedState.descriptors[SharedState.epollPlace] = epollFd
  const exchanges = WorkerExchanges.make({ libc, openSsl, sharedState, epollFd, report: end.send })
  const events = makeEvents(256)
  const wakeBytes = new Uint8Array(8)
  let sweptAt = performance.now()

  for (let isRunning = true; isRunning;) {
    const count = libc.epollWait(epollFd, events, end.maySleep() ? exchanges.sweepMillis() : 0)
    end.markAwake()
    for (let index = 0; index < count; index++) {
      const fd = events.fd(index)
      if (fd === workerWake) libc.read(workerWake, wakeBytes, wakeBytes.length)
      else exchanges.handle(fd, events.flags(index))
    }
    // After all events: a new exchange may reuse the number of a descriptor that was closed meanwhile, and the events above
    // are about the old one.
    isRunning = runCommands(exchanges, end)
    const now = performance.now()
    if (now - sweptAt >= exchanges.sweepMillis()) {
      exchanges.sweep(now - sweptAt)
      sweptAt = now
    }
  }

  exchanges.close()
  sharedState.descriptors[SharedState.epollPlace] = 0
  libc.close(epollFd)
}

// internal

const openEpoll = (libc: Libc, workerWake: number): number => {
  const epollFd = libc.epollCreate()
  if (epollFd < 0 || libc.epollControl(epollFd, epoll.add, workerWake, epoll.in) < 0) {
    throw new Error(`epoll: ${libc.errno()}`)
  }
  return epollFd
}

/** Runs the commands that have come. Returns `false` when one of them was `StopWorker`. */
const runCommands = (exchanges: WorkerExchanges.WorkerExchanges, end: WorkerEnd): boolean => {
  let isRunning = true
  for (let command = end.receive(); command !== undefined; command = end.receive()) {
    if (command._tag === "StopWorker") isRunning = false
    else runCommand(exchanges, command)
  }
  return isRunning
}

const runCommand = (exchanges: WorkerExchanges.WorkerExchanges, command: Exclude<Command, { _tag: "StopWorker" }>) => {
  switch (command._tag) {
    case "BeginExchange":
      return exchanges.begin(command)
    case "GrantBytes":
      return exchanges.grant(command)
    case "AbortExchange":
      return exchanges.abort(command.slot)
    case "FailWorker":
      throw new Error("the thread was to fail")
  }
}
