/**
 * One way through an exchange: from one socket to the other, by way of a shared buffer, or for bulk of a pipe where neither
 * speaks TLS.
 */
import type * as SharedState from "./SharedState.js"
import { type Libc, type Pipe, isLater } from "../ffi/Libc.js"
import type * as Pipes from "./Pipes.js"
import type { TlsSession } from "../tls/TlsSession.js"

export interface End {
  readonly side: "near" | "far"
  readonly fd: number
  /** What turns its bytes into those of the exchange. */
  readonly tls: TlsSession | undefined
}

/** One number of these. */
export interface Counter {
  readonly cells: Float64Array
  readonly at: number
}

export interface Pump {
  readonly from: End
  readonly to: End
  /** Where its bytes are counted. */
  readonly counter: Counter
  /** What was read and could not be written yet; the sink's session may have more. */
  pending: Uint8Array | undefined
  pipe: Pipe | undefined
  /** Bytes in the pipe. */
  held: number
  /** The source has half-closed; `done` once the sink was told so. */
  ended: boolean
  done: boolean
  /** Something was moved since the last look at it. */
  active: boolean
  /** Bytes that may still be read. When there is none, more is wanted, once. */
  allowance: number
  readonly want: (way: SharedState.Way) => void
  /** More is wanted, and not granted yet. */
  asked: boolean
  /** The way back. */
  other: Pump | undefined
  /** Reads in a row that filled the buffer, or that carried little through the pipe. */
  streak: number
}

/** The way on for what comes from one half of an exchange. */
const make = (
  [from, to]: readonly [End, End],
  counter: Counter,
  { ahead, allowance = Infinity, done = false }: SharedState.Half,
  want: Pump["want"]
): Pump => ({
  from,
  to,
  counter,
  pending: ahead.length > 0 ? ahead : undefined,
  pipe: undefined,
  held: 0,
  ended: done,
  done,
  active: true,
  allowance,
  want,
  asked: false,
  other: undefined,
  streak: 0
})

/** The two ways of an exchange. */
export const pair = (
  [near, far]: readonly [End, End],
  counters: readonly [Counter, Counter],
  halves: readonly [SharedState.Half, SharedState.Half],
  want: Pump["want"]
): readonly [there: Pump, back: Pump] => {
  const there = make([near, far], counters[0], halves[0], want)
  const back = make([far, near], counters[1], halves[1], want)
  there.other = back
  back.other = there
  return [there, back]
}

/** Whether it waits for the sink to take what it holds; otherwise it waits for the source, unless that has ended. */
export const isFull = ({ held, pending, to }: Pump): boolean =>
  pending !== undefined || held > 0 || to.tls?.isWaiting() === true

/** Lets more bytes pass. */
export const grant = (direction: Pump, bytes: number): void => {
  direction.allowance += bytes
  direction.asked = false
  direction.active = true
}

export interface Options {
  readonly libc: Libc
  /** Whether the sockets are closed as soon as both ways are done, which then passes on the last end. Defaults to `false`. */
  readonly isClosedAtOnce?: boolean | undefined
  readonly pipes: Pick<Pipes.Pipes, "give" | "room" | "take">
}

/**
 * Moves what can be moved now, up to a limit that is fair to the others, and says what broke it.
 *
 * The end of one way is passed on at once.
 */
export type Move = (direction: Pump) => Extract<SharedState.Outcome, { readonly _tag: "Broken" }> | undefined

export const makeMove = ({ isClosedAtOnce = false, libc, pipes }: Options): Move => {
  const buffer = new Uint8Array(bufferSize)
  type Broken = ReturnType<Move>

  // These answer with the negative errno when they fail, which is asked at once: nothing may come between.
  const checked = (result: number): number => (result < 0 ? -libc.errno() : result)
  const read = ({ fd, tls }: End, most: number): number =>
    tls === undefined ? checked(libc.read(fd, buffer, most)) : tls.read(buffer)
  const write = ({ fd, tls }: End, bytes: Uint8Array, length: number): number =>
    tls === undefined
      ? checked(libc.write(fd, bytes, length))
      : tls.write(length === bytes.length ? bytes : bytes.subarray(0, length))

  const broken = (operation: "read" | "write", direction: Pump, result: number): Broken => {
    const { side } = operation === "read" ? direction.from : direction.to
    return isLater(-result) ? undefined : { _tag: "Broken", side, operation, errno: -result }
  }
  const count = (direction: Pump, bytes: number) => {
    const { at, cells } = direction.counter
    cells[at] = (cells[at] ?? 0) + bytes
    direction.active = true
  }

  const end = (direction: Pump): Broken => {
    if (direction.done) return
    direction.ended = true
    demote(direction)
    const { fd, tls } = direction.to
    const isLast = isClosedAtOnce && direction.other?.done === true
    const told = tls !== undefined ? tls.end() : isLast ? 0 : checked(libc.shutdown(fd))
    if (told < 0) return broken("write", direction, told)
    direction.done = true
    direction.active = true
  }
  const demote = (direction: Pump) => {
    if (direction.pipe !== undefined) pipes.give(direction.pipe)
    direction.pipe = undefined
    direction.streak = 0
  }

  const flush = (direction: Pump): Broken => {
    const { pending, pipe, to } = direction
    if (pipe !== undefined && direction.held > 0) return drain(direction, pipe)
    if (pending === undefined) {
      const flushed = to.tls?.flush() ?? 0
      direction.active = true
      return flushed < 0 ? broken("write", direction, flushed) : undefined
    }
    const written = write(to, pending, pending.length)
    if (written < 0) return broken("write", direction, written)
    count(direction, written)
    direction.pending = written === pending.length ? undefined : pending.subarray(written)
  }
  const drain = (direction: Pump, pipe: Pipe): Broken => {
    const written = checked(libc.splice(pipe.read, direction.to.fd, direction.held))
    if (written < 0) return broken("write", direction, written)
    count(direction, written)
    direction.held -= written
  }

  /** Through the buffer. Answers `"Again"` when there may be more. */
  const copy = (direction: Pump): Broken | "Again" => {
    const { from, to } = direction
    const most = Math.min(plainSize, direction.allowance)
    const got = read(from, most)
    if (got === 0) return end(direction)
    if (got < 0) return broken("read", direction, got)
    direction.allowance -= got
    direction.streak = got === plainSize ? direction.streak + 1 : 0
    if (direction.streak === promotion && from.tls === undefined && to.tls === undefined) {
      direction.streak = 0
      direction.pipe = pipes.take()
    }
    const written = write(to, buffer, got)
    const failure = written < 0 ? broken("write", direction, written) : undefined
    if (failure !== undefined) return failure
    if (written < got) direction.pending = buffer.slice(Math.max(written, 0), got)
    if (written > 0) count(direction, written)
    return got >= most || from.tls?.isAhead() === true ? "Again" : undefined
  }
  /** Through the empty pipe. */
  const move = (direction: Pump, pipe: Pipe): Broken | "Again" => {
    const read = checked(libc.splice(direction.from.fd, pipe.write, Math.min(pipes.room, direction.allowance)))
    if (read === 0) return end(direction)
    if (read < 0) return broken("read", direction, read)
    direction.allowance -= read
    direction.held = read
    const failure = drain(direction, pipe)
    if (failure !== undefined) return failure
    direction.streak = read < little ? direction.streak + 1 : 0
    if (direction.streak >= demotion && direction.held === 0) demote(direction)
    return "Again"
  }

  return (direction) => {
    // What epoll does not know of is not left for another time.
    for (let round = 0; round < rounds || direction.from.tls?.isAhead() === true; round++) {
      if (isFull(direction)) {
        const failure = flush(direction)
        if (failure !== undefined) return failure
        if (isFull(direction)) return
      }
      if (direction.ended) return end(direction)
      if (direction.allowance <= 0) {
        if (direction.asked) return
        direction.asked = true
        direction.want(direction.from.side)
        return
      }
      const result = direction.pipe === undefined ? copy(direction) : move(direction, direction.pipe)
      if (result !== "Again") return result
    }
  }
}

// internal

/** Bytes that are read at once from a socket, and plain text from a session: with the tail of a record from before. */
const plainSize = 64 * 1024
const bufferSize = 128 * 1024

/** Turns that one direction has before the others have theirs. */
const rounds = 16

/** Full buffers in a row after which it is bulk. */
const promotion = 4
/** Bytes that are too few for a pipe to be worth it, and how often in a row it takes to give it back. */
const little = 16 * 1024
const demotion = 64
