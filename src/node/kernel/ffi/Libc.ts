/**
 * Functions of the C library for descriptors, pipes and epoll, called through koffi.
 *
 * No call blocks except `epollWait`. A result below zero is a failure: read `errno` right after it, before any other call.
 */
import { constants } from "node:os"

export interface Libc {
  readonly close: (fd: number) => number
  /** The number that the next descriptor gets, or `Infinity` when there is none left. `fd` is any open descriptor. */
  readonly lowestUnused: (fd: number) => number
  /** Half-closes our side of a socket. */
  readonly shutdown: (fd: number) => number
  readonly read: (fd: number, bytes: Uint8Array, count: number) => number
  readonly write: (fd: number, bytes: Uint8Array, count: number) => number
  /** Moves bytes between a pipe and a socket within the kernel. */
  readonly splice: (from: number, to: number, count: number) => number
  /** Opens a pipe that holds so many bytes, or as many as the system allows. */
  readonly pipe: (bytes: number) => Pipe | undefined
  readonly eventfd: () => number
  readonly epollCreate: () => number
  readonly epollControl: (epoll: number, operation: 1 | 2 | 3, fd: number, events: number) => number
  /** Waits for events, at most so long. Returns how many there are. */
  readonly epollWait: (epoll: number, events: Events, millis: number) => number
  /** Waits for events without limit, in a thread of Node's pool. Calls `done` with how many there are, 0 after a failure. */
  readonly epollWaitLater: (epoll: number, events: Events, done: (count: number) => void) => void
  readonly errno: () => number
}

export interface Pipe {
  readonly read: number
  readonly write: number
}

export const epoll = {
  add: 1,
  remove: 2,
  modify: 3,
  in: 0x1,
  out: 0x4,
  error: 0x8,
  hangUp: 0x10,
  halfClosed: 0x2000,
  edge: 0x80000000
} as const

/** The events of the last `epollWait`. */
export interface Events {
  readonly bytes: Uint8Array
  readonly limit: number
  readonly fd: (index: number) => number
  readonly flags: (index: number) => number
}

export const makeEvents = (limit: number): Events => {
  const bytes = new Uint8Array(limit * stride)
  const view = new DataView(bytes.buffer)
  return {
    bytes,
    limit,
    fd: (index) => view.getInt32(index * stride + dataAt, true),
    flags: (index) => view.getUint32(index * stride, true)
  }
}

/** Fails when koffi is missing or cannot load the C library. */
export const load = async (): Promise<Libc> => {
  const { default: koffi } = await import("koffi")
  // The C library that Node itself is linked with.
  const library = koffi.load(null)
  const fcntl: (fd: number, command: number, value: number) => number = library.func("int fcntl(int, int, int)")
  const close: Libc["close"] = library.func("int close(int)")
  const shutdown: (fd: number, how: number) => number = library.func("int shutdown(int, int)")
  const splice: (from: number, fromAt: null, to: number, toAt: null, count: number, flags: number) => number =
    library.func("long splice(int, void*, int, void*, ulong, uint)")
  const pipe2: (fds: Int32Array, flags: number) => number = library.func("int pipe2(void*, int)")
  const eventfd: (initial: number, flags: number) => number = library.func("int eventfd(uint, int)")
  const epollCreate: (flags: number) => number = library.func("int epoll_create1(int)")
  const epollControl: (epoll: number, operation: number, fd: number, event: Uint8Array) => number = library.func(
    "int epoll_ctl(int, int, int, void*)"
  )
  const epollWait: EpollWait = library.func("int epoll_wait(int, void*, int, int)")

  const fds = new Int32Array(2)
  const event = new DataView(new ArrayBuffer(stride))
  const eventBytes = new Uint8Array(event.buffer)
  return {
    close,
    lowestUnused: (fd) => {
      const copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)
      if (copy < 0) return Infinity
      close(copy)
      return copy
    },
    shutdown: (fd) => shutdown(fd, SHUT_WR),
    read: library.func("long read(int, void*, ulong)"),
    write: library.func("long write(int, void*, ulong)"),
    splice: (from, to, count) => splice(from, null, to, null, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK),
    pipe: (bytes) => {
      const [read, write] = pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0 ? [] : fds
      if (read === undefined || write === undefined) return undefined
      // When the system refuses, the pipe keeps its default of 64 KiB.
      fcntl(write, F_SETPIPE_SZ, bytes)
      return { read, write }
    },
    eventfd: () => eventfd(0, O_NONBLOCK | O_CLOEXEC),
    epollCreate: () => epollCreate(O_CLOEXEC),
    epollControl: (epoll, operation, fd, events) => {
      event.setUint32(0, events, true)
      event.setInt32(dataAt, fd, true)
      return epollControl(epoll, operation, fd, eventBytes)
    },
    epollWait: (epoll, events, millis) => epollWait(epoll, events.bytes, events.limit, millis),
    epollWaitLater: (epoll, events, done) =>
      epollWait.async(epoll, events.bytes, events.limit, -1, (_, count) => done(Math.max(0, count))),
    errno: () => koffi.errno()
  }
}

/** Whether a call failed only for now: there is nothing to read, no room to write, or a signal came. */
export const isRetryable = (errno: number): boolean => errno === EAGAIN || errno === EINTR

// internal

interface EpollWait {
  (epoll: number, events: Uint8Array, limit: number, millis: number): number
  readonly async: (
    epoll: number,
    events: Uint8Array,
    limit: number,
    millis: number,
    done: (error: unknown, count: number) => void
  ) => void
}

const { EAGAIN, EINTR } = constants.errno

// `struct epoll_event` is packed on x86-64 only.
const [stride, dataAt] = process.arch === "x64" ? [12, 4] : [16, 8]

// Constants of Linux, the same on x64 and arm64.
const F_DUPFD_CLOEXEC = 1030
const F_SETPIPE_SZ = 1031
const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const SHUT_WR = 1
const SPLICE_F_MOVE = 1
const SPLICE_F_NONBLOCK = 2
