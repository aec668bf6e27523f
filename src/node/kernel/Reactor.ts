/**
 * Exchanges between sockets that the kernel moves the bytes of: threads that wait in epoll, and what they are told.
 *
 * A thread is started for the first exchange, and others while all are busy. Should one die, what it was carrying is
 * reset, and another is started in its place.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Os from "node:os"
import type { Kernel } from "./Kernel.js"
import * as SharedState from "./reactor/SharedState.js"
import * as ReactorThread from "./ReactorThread.js"

export interface Reactor {
  /** What begins the next exchange, at once; `undefined` while there are too many, and where no thread can be started. */
  readonly prepare: () => ReactorThread.Begin | undefined
  /** Completes when a thread dies, or at once if one has since anybody last asked. */
  readonly died: Effect.Effect<Death>
  /** Ends the threads as a fault in them would. For tests. */
  readonly kill: Effect.Effect<void>
}

export interface Death {
  readonly exchanges: number
  readonly cause: unknown
}

export interface Options {
  /** Threads at most. Defaults to one for each core, and four where there are more. */
  readonly threads?: number | undefined
}

/** Its scope ends it: what it is carrying then is reset. */
export const make = (kernel: Kernel, options?: Options): Effect.Effect<Reactor, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => own(kernel, options?.threads ?? Math.min(Os.availableParallelism(), 4))),
    ({ close }) => close
  ).pipe(Effect.map(({ reactor }) => reactor))

// internal

/** Deaths that wait to be asked for. */
const remembered = 8

const own = (kernel: Kernel, most: number) => {
  const threads = new Set<ReactorThread.ReactorThread>()
  const deaths: Array<Death> = []
  const mourners = new Set<() => void>()
  let hopeless = false
  let closed = false

  const start = (): ReactorThread.ReactorThread | undefined => {
    const thread = ReactorThread.start(kernel, ({ cause, exchanges, wasReady }) => {
      if (thread !== undefined) threads.delete(thread)
      if (closed) return
      if (!wasReady) hopeless = true
      if (deaths.push({ exchanges, cause }) > remembered) deaths.shift()
      for (const wake of mourners) wake()
    })
    if (thread !== undefined) threads.add(thread)
    return thread
  }
  const leastBusy = () => {
    let least: ReactorThread.ReactorThread | undefined
    for (const thread of threads) if (least === undefined || thread.load() < least.load()) least = thread
    return least
  }

  const reactor: Reactor = {
    prepare: () => {
      if (hopeless || closed) return undefined
      const least = leastBusy()
      const isIdle = least !== undefined && least.load() === 0
      const thread = isIdle || threads.size >= most ? least : (start() ?? least)
      return thread === undefined || thread.load() >= SharedState.slots ? undefined : thread.begin
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
    kill: Effect.suspend(() => Effect.forEach(threads, ({ kill }) => kill, { discard: true }))
  }
  const close = Effect.suspend(() => {
    closed = true
    return Effect.forEach(threads, ({ stop }) => stop, { discard: true, concurrency: "unbounded" })
  })
  return { reactor, close: Effect.uninterruptible(close) }
}
