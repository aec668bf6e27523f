/**
 * The relay threads of the process. Each waits in epoll for the sockets of its exchanges, and moves their bytes.
 *
 * The first exchange starts a thread; another one starts while all are busy. When a thread fails, its exchanges are reset,
 * and the next exchange starts a thread in its place.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Os from "node:os"
import type { Kernel } from "./Kernel.js"
import * as SharedState from "./reactor/SharedState.js"
import * as ReactorThread from "./ReactorThread.js"

export interface Reactor {
  /**
   * Picks the thread for one exchange and returns what begins it there.
   *
   * `undefined` when there are too many exchanges, or no thread can be started.
   */
  readonly pickThread: () => ReactorThread.BeginExchange | undefined
  /** Completes when a thread has failed: each failure is taken once. */
  readonly failure: Effect.Effect<ThreadFailure>
  /** Ends the threads as a fault in them would. For tests. */
  readonly fail: Effect.Effect<void>
}

export interface ThreadFailure {
  /** Exchanges that were reset. */
  readonly exchanges: number
  readonly cause: unknown
}

export interface Options {
  /** The most threads. Defaults to the number of cores, and at most four. */
  readonly threads?: number | undefined
}

/** Closing the scope resets the exchanges and ends the threads. */
export const make = (kernel: Kernel, options?: Options): Effect.Effect<Reactor, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => open(kernel, options?.threads ?? Math.min(Os.availableParallelism(), 4))),
    ({ close }) => close
  ).pipe(Effect.map(({ reactor }) => reactor))

// internal

/** Failures that are kept until they are taken. */
const maxFailures = 8

const open = (kernel: Kernel, maxThreads: number) => {
  const threads = new Set<ReactorThread.ReactorThread>()
  const failures: Array<ThreadFailure> = []
  const failureListeners = new Set<() => void>()
  let cannotStart = false
  let isClosed = false

  const start = (): ReactorThread.ReactorThread | undefined => {
    const thread = ReactorThread.start(kernel, ({ cause, exchanges, wasReady }) => {
      if (thread !== undefined) threads.delete(thread)
      if (isClosed) return
      if (!wasReady) cannotStart = true
      if (failures.push({ exchanges, cause }) > maxFailures) failures.shift()
      for (const listener of failureListeners) listener()
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
    pickThread: () => {
      if (cannotStart || isClosed) return undefined
      const least = leastBusy()
      const isIdle = least !== undefined && least.load() === 0
      const thread = isIdle || threads.size >= maxThreads ? least : (start() ?? least)
      return thread === undefined || thread.load() >= SharedState.maxExchanges ? undefined : thread.begin
    },
    failure: Effect.async((resume) => {
      const take = () => {
        const failure = failures.shift()
        if (failure === undefined) return
        failureListeners.delete(take)
        resume(Effect.succeed(failure))
      }
      failureListeners.add(take)
      take()
      return Effect.sync(() => failureListeners.delete(take))
    }),
    fail: Effect.suspend(() => Effect.forEach(threads, ({ fail }) => fail, { discard: true }))
  }
  const close = Effect.suspend(() => {
    isClosed = true
    return Effect.forEach(threads, ({ stop }) => stop, { discard: true, concurrency: "unbounded" })
  })
  return { reactor, close: Effect.uninterruptible(close) }
}
