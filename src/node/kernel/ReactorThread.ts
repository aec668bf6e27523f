/**
 * One relay thread, seen from the main thread, its owner: begins exchanges in it, and cleans up when it exits.
 *
 * Who owns a descriptor when: see `ReactorMessages`.
 */
import * as Effect from "effect/Effect"
import process from "node:process"
import { Worker } from "node:worker_threads"
import type { Kernel } from "./Kernel.js"
import * as KernelSocket from "./KernelSocket.js"
import type { DetachedSocket, ExchangeResult, Side } from "./reactor/ReactorMessages.js"
import * as ReactorProtocol from "./reactor/ReactorProtocol.js"
import type { Data } from "./reactor/ReactorWorker.js"
import * as SharedState from "./reactor/SharedState.js"

/** How an exchange ended. `ThreadExited`: its thread exited before the exchange ended. */
export type Result = ExchangeResult | { readonly _tag: "ThreadExited"; readonly cause: unknown }

/** Bytes from near to far, `tx`, and from far to near, `rx`. */
export interface Bytes {
  readonly tx: number
  readonly rx: number
}

export interface Exchange {
  /** Bytes carried so far, read from shared memory. */
  readonly bytes: () => Bytes
  /** Lets more bytes pass that come from this side. */
  readonly grant: (side: Side, bytes: number) => void
  /** Resets both sides, unless they are closed. */
  readonly abort: () => void
}

/** Takes both descriptors. An exchange that is idle for `idleMillis` is reset. */
export type BeginExchange = (
  near: DetachedSocket,
  far: DetachedSocket,
  idleMillis: number,
  listener: ExchangeListener
) => Exchange

export interface ExchangeListener {
  /** Both descriptors are about to be closed. */
  readonly onClosing: () => void
  /** Both descriptors are closed. Called once. */
  readonly onEnd: (result: Result) => void
  /** The bytes granted for this side are used up. */
  readonly requestGrant: (side: Side) => void
}

export interface ReactorThread {
  /** How many exchanges it has. */
  readonly load: () => number
  readonly begin: BeginExchange
  /** Resets all exchanges and ends the thread. Completes when it has exited. */
  readonly stop: Effect.Effect<void>
  /** Ends the thread as a fault in it would. Completes when it has exited. For tests. */
  readonly fail: Effect.Effect<void>
}

export interface ThreadExit {
  /** Exchanges that were reset. */
  readonly exchanges: number
  readonly cause: unknown
  /** Whether the worker had started to serve. */
  readonly wasReady: boolean
}

/** Starts a thread; `undefined` when the process is out of descriptors. */
export const start = (kernel: Kernel, onExit: (exit: ThreadExit) => void): ReactorThread | undefined => {
  const { libc, openSsl, poller, worker: file } = kernel
  const [workerWake, ownerWake] = [libc.eventfd(), libc.eventfd()]
  if (workerWake < 0 || ownerWake < 0) {
    for (const fd of [workerWake, ownerWake]) if (fd >= 0) libc.close(fd)
    return undefined
  }
  const sharedState = SharedState.make()
  const protocol = ReactorProtocol.make()
  const worker = new Worker(file, {
    workerData: {
      sharedState: sharedState.memory,
      protocol: protocol.memory,
      workerWake,
      ownerWake
    } satisfies Data,
    name: "nodepass-reactor",
    execArgv: []
  })
  const end = ReactorProtocol.ownerEnd(protocol, {
    libc,
    workerWake,
    post: (attachment) => worker.postMessage(attachment, [])
  })
  const running = new Map<number, Running>()
  const freeSlots: Array<number> = []
  let nextSlot = 0
  let isReady = false
  let hasExited = false
  let cause: unknown
  const exitListeners = new Set<() => void>()

  // Exchanges

  const bytesOf = (slot: number): Bytes => ({
    tx: sharedState.bytes[2 * slot] ?? 0,
    rx: sharedState.bytes[2 * slot + 1] ?? 0
  })
  const begin: BeginExchange = (near, far, idleMillis, listener) => {
    const slot = freeSlots.pop() ?? nextSlot++
    const exchange: Running = { sockets: [near, far], listener, finalBytes: undefined }
    sharedState.bytes[2 * slot] = 0
    sharedState.bytes[2 * slot + 1] = 0
    // While it has exchanges, the thread keeps the process alive as an open socket would.
    if (running.size === 0) poller.watch(ownerWake, { handle: receiveReports })
    running.set(slot, exchange)
    end.send({ _tag: "BeginExchange", slot, near, far, idleMillis })
    return {
      bytes: () => exchange.finalBytes ?? bytesOf(slot),
      grant: (side, bytes) => {
        if (exchange.finalBytes === undefined) end.send({ _tag: "GrantBytes", slot, side, bytes })
      },
      abort: () => {
        if (exchange.finalBytes === undefined) end.send({ _tag: "AbortExchange", slot })
      }
    }
  }
  const receiveReports = () =>
    end.receive((report) => {
      if (report._tag === "ExchangeEnded") finish(report.slot, report.result)
      else running.get(report.slot)?.listener.requestGrant(report.side)
    })
  const finish = (slot: number, result: Result) => {
    const exchange = running.get(slot)
    if (exchange === undefined) return
    exchange.finalBytes = bytesOf(slot)
    running.delete(slot)
    exchange.listener.onClosing()
    const how = result._tag === "Done" ? "End" : "Reset"
    for (const socket of exchange.sockets) KernelSocket.closeDetached(kernel, socket, how)
    freeSlots.push(slot)
    if (running.size === 0) poller.unwatch(ownerWake)
    exchange.listener.onEnd(result)
  }

  // The end of the thread

  /** Completes when the thread has exited. */
  const endBy = (_tag: "FailWorker" | "StopWorker") =>
    Effect.async<void>((resume) => {
      if (hasExited) return resume(Effect.void)
      worker.ref()
      exitListeners.add(() => resume(Effect.void))
      end.send({ _tag })
    })
  /** Node terminates its threads when the process exits. This one leaves its loop first: none is to end within a call of C. */
  const stopAtExit = () => {
    if (hasExited) return
    end.send({ _tag: "StopWorker" })
    if (isReady) Atomics.wait(sharedState.ended, 0, 0, exitWaitMillis)
  }
  const cleanUp = () => {
    receiveReports()
    end.close()
    hasExited = true
    process.off("exit", stopAtExit)
    const exchanges = running.size
    cause ??= new Error("the thread ended")
    for (const slot of running.keys()) finish(slot, { _tag: "ThreadExited", cause })
    for (const fd of [...sharedState.descriptors, workerWake, ownerWake]) if (fd !== 0) libc.close(fd)
    for (const bio of sharedState.bios) if (bio !== 0n) openSsl?.freeBio(bio)
    onExit({ exchanges, cause, wasReady: isReady })
    for (const listener of exitListeners) listener()
  }
  worker
    .on("message", () => {
      isReady = true
    })
    .on("error", (error) => {
      cause = error
    })
    .on("exit", cleanUp)
    .unref()
  process.on("exit", stopAtExit)

  return {
    load: () => running.size,
    begin,
    stop: endBy("StopWorker"),
    fail: endBy("FailWorker")
  }
}

// internal

/** How long the exit of the process waits for a thread at most. It takes microseconds, unless the machine is busy. */
const exitWaitMillis = 1000

interface Running {
  readonly sockets: readonly [near: DetachedSocket, far: DetachedSocket]
  readonly listener: ExchangeListener
  /** Set at the end. Then the cells of the slot belong to another exchange. */
  finalBytes: Bytes | undefined
}
