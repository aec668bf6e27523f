/**
 * Calls handlers in this thread when descriptors become ready: one epoll for the process, beside the one of Node.
 *
 * Node's loop waits for that epoll as for any descriptor. Where it cannot, each of its turns polls epoll without waiting while
 * events come, and a thread of Node's pool waits when none come: that takes another change of threads for each event.
 */
import type { Events, Libc } from "./ffi/Libc.js"
import { epoll, makeEvents } from "./ffi/Libc.js"
import type { Uv } from "./ffi/Uv.js"

export interface Poller {
  /**
   * Calls the handler once with the present state, then after each change for the better and after errors (edge-triggered).
   *
   * Returns `false` when the system has no room for it.
   */
  readonly watch: (fd: number, watcher: Watcher) => boolean
  /** Replaces the handler. The new one is not called with the present state: its owner must try what is possible now. */
  readonly setHandler: (fd: number, watcher: Watcher) => void
  /** Removes a descriptor from epoll, before another thread gets it. */
  readonly unwatch: (fd: number) => void
  /** Drops the handler without a system call. The caller must close the descriptor at once, which removes it from epoll. */
  readonly forget: (fd: number) => void
}

/** `hungUp`: the peer has half-closed, or the connection has an error or is over. `failed`: it has an error. */
export interface Readiness {
  readonly readable: boolean
  readonly writable: boolean
  readonly hungUp: boolean
  readonly failed: boolean
}

/** An object, since many sockets are watched, and a closure for each would take memory. */
export interface Watcher {
  handle(state: Readiness): void
}

/** One for the process: each may take a thread of Node's pool. */
export const make = (libc: Libc, uv: Uv | undefined): Poller => {
  const epollFd = libc.epollCreate()
  if (epollFd < 0) throw new Error(`epoll: ${libc.errno()}`)
  const events = makeEvents(256)
  const handlers: Array<Watcher | undefined> = []
  let watched = 0
  const handle = (count: number) => {
    for (let index = 0; index < count; index++) {
      handlers[events.fd(index)]?.handle(stateOf(events.flags(index)))
    }
  }
  const loop = inLoop(libc, uv, { epollFd, events, handle }) ?? inTurns(libc, { epollFd, events, handle })

  const forget = (fd: number) => {
    if (handlers[fd] === undefined) return
    handlers[fd] = undefined
    if (--watched === 0) loop.stop()
  }
  return {
    watch: (fd, watcher) => {
      if (libc.epollControl(epollFd, epoll.add, fd, epoll.in | epoll.out | epoll.halfClosed | epoll.edge) < 0) {
        return false
      }
      handlers[fd] = watcher
      if (++watched === 1) loop.start()
      return true
    },
    setHandler: (fd, watcher) => {
      handlers[fd] = watcher
    },
    unwatch: (fd) => {
      if (handlers[fd] === undefined) return
      libc.epollControl(epollFd, epoll.remove, fd, 0)
      forget(fd)
    },
    forget
  }
}

// internal

interface Waiting {
  readonly epollFd: number
  readonly events: Events
  /** So many events have come. */
  readonly handle: (count: number) => void
}

/** Has `handle` called from `start` to `stop`. While it waits, the process does not end by itself. */
interface Loop {
  readonly start: () => void
  readonly stop: () => void
}

/** Waits in Node's loop; `undefined` where that is not possible. */
const inLoop = (libc: Libc, uv: Uv | undefined, { epollFd, events, handle }: Waiting): Loop | undefined => {
  const poll = uv?.poll(epollFd, () => handle(libc.epollWait(epollFd, events, 0)))
  if (poll !== undefined) process.on("exit", poll.stop)
  return poll
}

/** Polls in turns of Node's loop while events come, and waits in a thread of Node's pool when none come. */
const inTurns = (libc: Libc, { epollFd, events, handle }: Waiting): Loop => {
  const wake = libc.eventfd()
  if (wake < 0 || libc.epollControl(epollFd, epoll.add, wake, epoll.in) < 0) throw new Error(`epoll: ${libc.errno()}`)
  const wakeBytes = new Uint8Array(8)
  let isWanted = false
  let lastEventAt = 0
  /** How many more turns without events are tried before a thread of the pool waits. */
  let turnsLeft = 0
  let state: "Off" | "Turning" | "Waiting" = "Off"

  const turn = () => {
    const count = libc.epollWait(epollFd, events, 0)
    if (count > 0) found(count)
    else if (isWanted && turnsLeft > 0) {
      turnsLeft--
      setImmediate(turn)
    } else if (isWanted) {
      state = "Waiting"
      libc.epollWaitLater(epollFd, events, waited)
    } else state = "Off"
  }
  const waited = (count: number) => {
    state = "Turning"
    found(count)
  }
  const found = (count: number) => {
    const now = performance.now()
    turnsLeft = now - lastEventAt < shortWaitMillis ? turnsInsteadOfWait : 0
    lastEventAt = now
    // Its handler is none.
    libc.read(wake, wakeBytes, wakeBytes.length)
    handle(count)
    setImmediate(turn)
  }
  const endWait = () => {
    if (state === "Waiting") libc.write(wake, one, one.length)
  }
  // Node joins the threads of its pool when the process exits.
  process.on("exit", endWait)
  return {
    start: () => {
      isWanted = true
      if (state !== "Off") return
      state = "Turning"
      setImmediate(turn)
    },
    // A wait keeps the process alive, and no event can end this one.
    stop: () => {
      isWanted = false
      endWait()
    }
  }
}

/** A wake-up by the pool costs as much as so many turns. They replace the wait when the last one was shorter than this. */
const shortWaitMillis = 0.1
const turnsInsteadOfWait = 16

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

const stateOf = (flags: number): Readiness => {
  const hungUp = (flags & (epoll.error | epoll.hangUp | epoll.halfClosed)) !== 0
  return {
    hungUp,
    failed: (flags & epoll.error) !== 0,
    readable: hungUp || (flags & epoll.in) !== 0,
    writable: (flags & (epoll.error | epoll.hangUp | epoll.out)) !== 0
  }
}
