/**
 * Tells this thread what becomes possible with its descriptors: one epoll for the process, beside the one of Node.
 *
 * While anything happens it is asked in each turn of Node's loop, which costs a microsecond or two. When nothing does, a
 * thread of Node's pool waits in it, and wakes this one.
 */
import type { Libc } from "./ffi/Libc.js"
import { epoll, makeEvents } from "./ffi/Libc.js"

export interface Poller {
  /**
   * Tells of each change for the better from now on, and of errors; once of what is possible now.
   *
   * False when the system has no room for it.
   */
  readonly watch: (fd: number, ready: Ready) => boolean
  /** Tells somebody else from now on, at once of nothing: who takes over looks for itself what is possible now. */
  readonly pass: (fd: number, ready: Ready) => void
  /** Before the descriptor is given to another thread. */
  readonly forget: (fd: number) => void
  /** Before the descriptor is closed, which is then to be done at once. */
  readonly drop: (fd: number) => void
}

export type Ready = (state: { readonly readable: boolean; readonly writable: boolean; readonly over: boolean }) => void

/** Shared by all that runs in this process, since each takes a thread of the pool. */
export const make = (libc: Libc): Poller => {
  const poll = libc.epollCreate()
  const wake = libc.eventfd()
  if (poll < 0 || wake < 0 || libc.epollControl(poll, epoll.add, wake, epoll.in) < 0) {
    throw new Error(`epoll: ${libc.errno()}`)
  }
  const events = makeEvents(256)
  const handlers: Array<Ready | undefined> = []
  const bytes = new Uint8Array(8)
  let watched = 0
  /** When anything happened, and how many turns of nothing are to be borne now. */
  let last = 0
  let patience = 0
  let state: "off" | "turning" | "waiting" = "off"

  const dispatch = (count: number) => {
    for (let index = 0; index < count; index++) {
      const fd = events.fd(index)
      if (fd === wake) libc.read(wake, bytes, bytes.length)
      else handlers[fd]?.(flagsOf(events.flags(index)))
    }
  }
  const turn = () => {
    const count = libc.epollWait(poll, events, 0)
    if (count > 0) heard(count)
    else if (watched > 0 && patience > 0) {
      patience--
      setImmediate(turn)
    } else if (watched > 0) {
      state = "waiting"
      libc.epollWaitLater(poll, events, woken)
    } else state = "off"
  }
  const woken = (count: number) => {
    state = "turning"
    heard(count)
  }
  const heard = (count: number) => {
    const now = performance.now()
    patience = now - last < soon ? turns : 0
    last = now
    dispatch(count)
    setImmediate(turn)
  }
  const drop = (fd: number) => {
    if (handlers[fd] === undefined) return
    handlers[fd] = undefined
    // The process need not go on for a wait that nothing can end.
    if (--watched === 0) stir()
  }
  const stir = () => {
    if (state === "waiting") libc.write(wake, one, one.length)
  }
  // Node joins its threads at the exit.
  process.on("exit", stir)

  return {
    watch: (fd, ready) => {
      if (libc.epollControl(poll, epoll.add, fd, epoll.in | epoll.out | epoll.halfClosed | epoll.edge) < 0) return false
      handlers[fd] = ready
      watched++
      if (state === "off") {
        state = "turning"
        setImmediate(turn)
      }
      return true
    },
    pass: (fd, ready) => {
      handlers[fd] = ready
    },
    forget: (fd) => {
      if (handlers[fd] === undefined) return
      libc.epollControl(poll, epoll.remove, fd, 0)
      drop(fd)
    },
    drop
  }
}

// internal

/**
 * To be woken costs as much as so many turns. Where the last wait was shorter than that, in milliseconds, the next one
 * is done without.
 */
const soon = 0.1
const turns = 16

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

const flagsOf = (flags: number) => {
  const over = (flags & (epoll.error | epoll.hangUp | epoll.halfClosed)) !== 0
  return {
    over,
    readable: over || (flags & epoll.in) !== 0,
    writable: (flags & (epoll.error | epoll.hangUp | epoll.out)) !== 0
  }
}
