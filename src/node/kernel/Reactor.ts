/**
 * Exchanges between sockets that the kernel moves the bytes of: a thread that waits in epoll, and what it is told.
 *
 * The thread is started for the first exchange. Should it die, what it was carrying is reset, and the next exchange has
 * another one started.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import process from "node:process"
import { Worker } from "node:worker_threads"
import type { Kernel } from "./Kernel.js"
import * as Ledger from "./Ledger.js"
import type { Libc } from "./Libc.js"
import type { Data } from "./ReactorWorker.js"

/** How an exchange ended: as the worker says, or with it. */
export type Outcome = Ledger.Outcome | { readonly _tag: "Died"; readonly cause: unknown }

/** Bytes from near to far, `tx`, and from far to near. */
export interface Bytes {
  readonly tx: number
  readonly rx: number
}

export interface Exchange {
  /** So far; asks nobody. */
  readonly bytes: () => Bytes
  /** Completes as both descriptors are being closed. */
  readonly ended: Effect.Effect<Outcome>
  /** Resets both sides; completes as `ended` does. */
  readonly abort: Effect.Effect<Outcome>
}

export interface Reactor {
  /** What begins the next exchange, at once; `undefined` while there are too many, and where no thread can be started. */
  readonly prepare: () => Begin | undefined
  /** Completes when the thread dies, or at once if it has since anybody last asked. */
  readonly died: Effect.Effect<Death>
  /** Ends the thread as a fault in it would. For tests. */
  readonly kill: Effect.Effect<void>
}

/** Takes over both descriptors, and closes them in the end. An exchange silent both ways for `idleMillis` is reset. */
export type Begin = (near: Ledger.Half, far: Ledger.Half, idleMillis: number) => Exchange

export interface Death {
  readonly exchanges: number
  readonly cause: unknown
}

/** Its scope ends it: what it is carrying then is reset. */
export const make = ({ libc, worker }: Kernel): Effect.Effect<Reactor, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => own(libc, worker)),
    ({ close }) => close
  ).pipe(Effect.map(({ reactor }) => reactor))

// internal

interface Entry {
  bytes: Bytes | undefined
  outcome: Outcome | undefined
  readonly waiting: Set<(outcome: Outcome) => void>
}

interface Thread {
  readonly worker: Worker
  readonly ledger: Ledger.Ledger
  readonly wake: number
  readonly entries: Map<number, Entry>
  readonly free: Array<number>
  next: number
  ready: boolean
  gone: boolean
  cause: unknown
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

const own = (libc: Libc, file: string) => {
  let thread: Thread | undefined
  let hopeless = false
  let closed = false
  const deaths: Array<Death> = []
  const mourners = new Set<() => void>()
  const leaving = new Set<() => void>()

  const tell = ({ gone, wake, worker }: Thread, command: Ledger.Command) => {
    if (gone) return
    worker.postMessage(command, [])
    libc.write(wake, one, one.length)
  }
  const stop = () => {
    if (thread !== undefined) tell(thread, { _tag: "Stop" })
  }

  const bytesOf = ({ ledger }: Thread, slot: number): Bytes => ({
    tx: ledger.bytes[2 * slot] ?? 0,
    rx: ledger.bytes[2 * slot + 1] ?? 0
  })
  const settle = (of: Thread, slot: number, outcome: Outcome) => {
    const entry = of.entries.get(slot)
    if (entry === undefined) return
    entry.bytes = bytesOf(of, slot)
    entry.outcome = outcome
    of.entries.delete(slot)
    of.free.push(slot)
    if (of.entries.size === 0) of.worker.unref()
    for (const wake of entry.waiting) wake(outcome)
  }

  /** What a dead thread owned is nobody's: it is closed here. */
  const inherit = (of: Thread) => {
    of.gone = true
    if (thread === of) thread = undefined
    process.off("exit", stop)
    libc.close(of.wake)
    const { descriptors } = of.ledger
    descriptors.forEach((fd, place) => {
      if (fd === 0) return
      descriptors[place] = 0
      if (place < Ledger.pipesAt) libc.linger(fd)
      libc.close(fd)
    })
    const exchanges = of.entries.size
    const cause = of.cause ?? new Error("the thread ended")
    for (const slot of of.entries.keys()) settle(of, slot, { _tag: "Died", cause })
    if (!closed) {
      if (!of.ready) hopeless = true
      if (deaths.push({ exchanges, cause }) > 1) deaths.shift()
      for (const wake of mourners) wake()
    }
    for (const wake of leaving) wake()
  }

  const start = (): Thread | undefined => {
    const wake = libc.eventfd()
    if (wake < 0) return undefined
    const ledger = Ledger.make()
    const worker = new Worker(file, {
      workerData: { memory: ledger.memory, wake } satisfies Data,
      name: "nodepass-reactor",
      execArgv: []
    })
    const of: Thread = {
      worker,
      ledger,
      wake,
      entries: new Map(),
      free: [],
      next: 0,
      ready: false,
      gone: false,
      cause: undefined
    }
    worker.on("message", (report: Ledger.Report) => {
      if (report._tag === "Ready") of.ready = true
      else settle(of, report.slot, report.outcome)
    })
    worker.on("error", (cause) => {
      of.cause = cause
    })
    worker.on("exit", () => inherit(of))
    worker.unref()
    // Node waits for its threads, and this one waits for nobody but us.
    process.on("exit", stop)
    return of
  }

  const ended = (entry: Entry): Effect.Effect<Outcome> =>
    Effect.async((resume) => {
      if (entry.outcome !== undefined) return resume(Effect.succeed(entry.outcome))
      const wake = (outcome: Outcome) => {
        entry.waiting.delete(wake)
        resume(Effect.succeed(outcome))
      }
      entry.waiting.add(wake)
      return Effect.sync(() => entry.waiting.delete(wake))
    })

  const begin =
    (of: Thread): Begin =>
    (near, far, idleMillis) => {
      const slot = of.free.pop() ?? of.next++
      const entry: Entry = { bytes: undefined, outcome: undefined, waiting: new Set() }
      const { bytes, descriptors } = of.ledger
      bytes[2 * slot] = 0
      bytes[2 * slot + 1] = 0
      descriptors[2 * slot] = near.descriptor
      descriptors[2 * slot + 1] = far.descriptor
      // While it carries anything, the process goes on for it as for an open socket.
      if (of.entries.size === 0) of.worker.ref()
      of.entries.set(slot, entry)
      tell(of, { _tag: "Begin", slot, near, far, idleMillis })
      return {
        bytes: () => entry.bytes ?? bytesOf(of, slot),
        ended: ended(entry),
        abort: Effect.suspend(() => {
          if (entry.outcome === undefined) tell(of, { _tag: "Abort", slot })
          return ended(entry)
        })
      }
    }

  const reactor: Reactor = {
    prepare: () => {
      if (hopeless || closed) return undefined
      thread ??= start()
      return thread === undefined || thread.entries.size >= Ledger.slots ? undefined : begin(thread)
    },
    died: Effect.async((resume) => {
      const wake = () => {
        const death = deaths.shift()
        if (death === undefined) return
        mourners.delete(wake)
        resume(Effect.succeed(death))
      }
      mourners.add(wake)
      wake()
      return Effect.sync(() => mourners.delete(wake))
    }),
    kill: Effect.promise(async () => {
      await thread?.worker.terminate()
    })
  }
  const close = Effect.async<void>((resume) => {
    closed = true
    if (thread === undefined) return resume(Effect.void)
    thread.worker.ref()
    const done = () => {
      leaving.delete(done)
      resume(Effect.void)
    }
    leaving.add(done)
    stop()
  })
  return { reactor, close: Effect.uninterruptible(close) }
}
