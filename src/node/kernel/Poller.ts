/**
 * Calls handlers in this thread when descriptors become ready: one epoll for the process, beside the one of Node.
 *
 * While events come, each turn of Node's loop polls epoll without waiting, which costs one or two microseconds. When none
 * come, a thread of Node's pool waits in epoll and wakes this thread.
 */
import type { Libc } from "./ffi/Libc.js"
import { epoll, makeEvents } from "./ffi/Libc.js"

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

/** One for the process: each takes a thread of Node's pool. */
export const make = (libc: Libc): Poller => {
  const epollFd = libc.epollCreate()
  const wake = libc.eventfd()
  if (epollFd < 0 || wake < 0 || libc.epollControl(epollFd, epoll.add, wake, epoll.in) < 0) {
    throw new Error(`epoll: ${libc.errno()}`)
  }
  const events = makeEvents(256)
  const handlers: Array<Watcher | undefined> = []
  const wakeBytes = new Uint8Array(8)
  let watched = 0
  let lastEventAt = 0
  /** How many more turns without events are tried before a thread of the pool waits. */
  let turnsLeft = 0
  let state: "Off" | "Turning" | "Waiting" = "Off"

  // Turns of Node's loop

  const turn = () => {
    const count = libc.epollWait(epollFd, events, 0)
    if (count > 0) handle(count)
    else if (watched > 0 && turnsLeft > 0) {
      turnsLeft--
      setImmediate(turn)
    } else if (watched > 0) {
      state = "Waiting"
      libc.epollWaitLater(epollFd, events, waited)
    } else state = "Off"
  }
  const waited = (count: number) => {
    state = "Turning"
    handle(count)
  }
  const handle = (count: number) => {
    const now = performance.now()
    turnsLeft = now - lastEventAt < shortWaitMillis ? turnsInsteadOfWait : 0
    lastEventAt = now
    for (let index = 0; index < count; index++) {
      const fd = events.fd(index)
      if (fd === wake) libc.read(wake, wakeBytes, wakeBytes.length)
      else handlers[fd]?.handle(stateOf(events.flags(index)))
    }
    setImmediate(turn)
  }
  const endWait = () => {
    if (state === "Waiting") libc.write(wake, one, one.length)
  }
  // Node joins the threads of its pool when the process exits.
  process.on("exit", endWait)

  // Descriptors

  const forget = (fd: number) => {
    if (handlers[fd] === undefined) return
    handlers[fd] = undefined
    // A wait keeps the process alive, and no event can end this one.
    if (--watched === 0) endWait()
  }
  return {
    watch: (fd, watcher) => {
      if (libc.epollControl(epollFd, epoll.add, fd, epoll.in | epoll.out | epoll.halfClosed | epoll.edge) < 0) {
        return false
      }
      handlers[fd] = watcher
      watched++
      if (state === "Off") {
        state = "Turning"
        setImmediate(turn)
      }
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
