/**
 * One life of a reactor's thread, seen from the outside: what it is told, and what it tells.
 */
import * as Effect from "effect/Effect"
import process from "node:process"
import { Worker } from "node:worker_threads"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import * as SharedState from "./reactor/SharedState.js"
import * as ReactorProtocol from "./reactor/ReactorProtocol.js"
import type { Data } from "./reactor/ReactorWorker.js"

/** How an exchange ended: as the worker says, or with it. */
export type Outcome = SharedState.Outcome | { readonly _tag: "Died"; readonly cause: unknown }

/** Bytes from near to far, `tx`, and from far to near. */
export interface Bytes {
  readonly tx: number
  readonly rx: number
}

export interface Exchange {
  /** So far; asks nobody. */
  readonly bytes: () => Bytes
  /** Lets more bytes pass. */
  readonly grant: (way: SharedState.Way, bytes: number) => void
  /** Resets both sides, unless they are closed. */
  readonly abort: () => void
}

/** Takes over both descriptors. An exchange silent both ways for `idleMillis` is reset. */
export type Begin = (near: SharedState.Half, far: SharedState.Half, idleMillis: number, told: Told) => Exchange

export interface Told {
  /** Both descriptors are about to be closed. */
  readonly closing: () => void
  /** Told once how it ended, when both descriptors are closed. */
  readonly over: (outcome: Outcome) => void
  /** Asked for a grant, that way. */
  readonly want: (way: SharedState.Way) => void
}

export interface ReactorThread {
  /** Exchanges under way. */
  readonly load: () => number
  readonly begin: Begin
  /** Resets all and ends the thread; completes when it is gone. */
  readonly stop: Effect.Effect<void>
  /** Ends it as a fault in it would. */
  readonly kill: Effect.Effect<void>
}

export interface Gone {
  readonly exchanges: number
  readonly cause: unknown
  /** Whether it had begun to serve. */
  readonly wasReady: boolean
}

interface Entry {
  readonly halves: readonly [near: SharedState.Half, far: SharedState.Half]
  readonly told: Told
  /** Once it is over. */
  bytes: Bytes | undefined
}

/** `undefined` where the system has no descriptors left. */
export const start = (kernel: Kernel, onGone: (gone: Gone) => void): ReactorThread | undefined => {
  const { libc, openSsl, poller, worker: file } = kernel
  const [wake, bell] = [libc.eventfd(), libc.eventfd()]
  if (wake < 0 || bell < 0) {
    for (const fd of [wake, bell]) if (fd >= 0) libc.close(fd)
    return undefined
  }
  const ledger = SharedState.make()
  const mail = ReactorProtocol.make()
  const worker = new Worker(file, {
    workerData: { memory: ledger.memory, mail: mail.memory, wake, bell } satisfies Data,
    name: "nodepass-reactor",
    execArgv: []
  })
  const office = ReactorProtocol.office(mail, { libc, wake, post: (ahead) => worker.postMessage(ahead, []) })
  const entries = new Map<number, Entry>()
  const free: Array<number> = []
  const leaving = new Set<() => void>()
  let next = 0
  let ready = false
  let gone = false
  let cause: unknown

  const bytesOf = (slot: number): Bytes => ({
    tx: ledger.bytes[2 * slot] ?? 0,
    rx: ledger.bytes[2 * slot + 1] ?? 0
  })
  const settle = (slot: number, outcome: Outcome) => {
    const entry = entries.get(slot)
    if (entry === undefined) return
    entry.bytes = bytesOf(slot)
    entries.delete(slot)
    entry.told.closing()
    for (const half of entry.halves) KernelConnection.closeHalf(kernel, half, outcome._tag !== "Done")
    free.push(slot)
    if (entries.size === 0) poller.forget(bell)
    entry.told.over(outcome)
  }
  const hear = () =>
    office.hear((report) => {
      if (report._tag === "Over") settle(report.slot, report.outcome)
      else entries.get(report.slot)?.told.want(report.way)
    })
  const stop = () => {
    if (!gone) office.tell({ _tag: "Stop" })
  }

  const inherit = () => {
    hear()
    office.close()
    gone = true
    process.off("exit", stop)
    const exchanges = entries.size
    cause ??= new Error("the thread ended")
    for (const slot of entries.keys()) settle(slot, { _tag: "Died", cause })
    for (const fd of [...ledger.descriptors, wake, bell]) if (fd !== 0) libc.close(fd)
    for (const half of ledger.halves) if (half !== 0n) openSsl?.freeHalf(half)
    onGone({ exchanges, cause, wasReady: ready })
    for (const wake of leaving) wake()
  }
  worker
    .on("message", () => {
      ready = true
    })
    .on("error", (error) => {
      cause = error
    })
    .on("exit", inherit)
    .unref()
  // Node waits for its threads, and this one waits for nobody but us.
  process.on("exit", stop)

  const begin: Begin = (near, far, idleMillis, told) => {
    const slot = free.pop() ?? next++
    const entry: Entry = { halves: [near, far], told, bytes: undefined }
    const { bytes } = ledger
    bytes[2 * slot] = 0
    bytes[2 * slot + 1] = 0
    // While it carries anything, the process goes on for it as for an open socket.
    if (entries.size === 0) poller.watch(bell, hear)
    entries.set(slot, entry)
    office.tell({ _tag: "Begin", slot, near, far, idleMillis })
    return {
      bytes: () => entry.bytes ?? bytesOf(slot),
      grant: (way, bytes) => {
        if (entry.bytes === undefined) office.tell({ _tag: "Grant", slot, way, bytes })
      },
      abort: () => {
        if (entry.bytes === undefined) office.tell({ _tag: "Abort", slot })
      }
    }
  }

  return {
    load: () => entries.size,
    begin,
    stop: Effect.async<void>((resume) => {
      if (gone) return resume(Effect.void)
      worker.ref()
      leaving.add(() => resume(Effect.void))
      stop()
    }),
    kill: Effect.promise(async () => {
      await worker.terminate()
    })
  }
}
