/**
 * One way through an exchange: from one socket to the other, by way of a shared buffer, or for bulk of a pipe.
 */
import type * as Ledger from "./Ledger.js"
import { type Libc, type Pipe, isLater } from "./Libc.js"
import type * as Pipes from "./Pipes.js"

export interface End {
  readonly side: "near" | "far"
  readonly fd: number
}

export interface Direction {
  readonly from: End
  readonly to: End
  /** Where its bytes are counted. */
  readonly counter: number
  /** What was read and could not be written yet. */
  pending: Uint8Array | undefined
  pipe: Pipe | undefined
  /** Bytes in the pipe. */
  held: number
  /** The source has half-closed; `done` once the sink was told so. */
  ended: boolean
  done: boolean
  /** Something was moved since the last look at it. */
  active: boolean
  /** Reads in a row that filled the buffer, or that carried little through the pipe. */
  streak: number
}

export const make = (from: End, to: End, counter: number, ahead: Uint8Array): Direction => ({
  from,
  to,
  counter,
  pending: ahead.length > 0 ? ahead : undefined,
  pipe: undefined,
  held: 0,
  ended: false,
  done: false,
  active: true,
  streak: 0
})

/** Whether it waits for the sink to take what it holds; otherwise it waits for the source, unless that has ended. */
export const isFull = (direction: Direction): boolean => direction.pending !== undefined || direction.held > 0

export interface Options {
  readonly libc: Libc
  readonly ledger: Ledger.Ledger
  readonly pipes: Pipes.Pipes
}

/**
 * Moves what can be moved now, up to a limit that is fair to the others, and says what broke it.
 *
 * The end of one way is passed on at once; once the `other` is done too, to close the sockets is to pass on the last.
 */
export type Pump = (
  direction: Direction,
  other: Direction
) => Extract<Ledger.Outcome, { readonly _tag: "Broken" }> | undefined

export const makePump = ({ ledger, libc, pipes }: Options): Pump => {
  const buffer = new Uint8Array(bufferSize)
  type Broken = ReturnType<Pump>

  const broken = (operation: "read" | "write", direction: Direction): Broken => {
    const errno = libc.errno()
    const { side } = operation === "read" ? direction.from : direction.to
    return isLater(errno) ? undefined : { _tag: "Broken", side, operation, errno }
  }
  const count = (direction: Direction, bytes: number) => {
    ledger.bytes[direction.counter] = (ledger.bytes[direction.counter] ?? 0) + bytes
    direction.active = true
  }

  const end = (direction: Direction, other: Direction): Broken => {
    direction.ended = true
    demote(direction)
    if (!other.done && libc.shutdown(direction.to.fd) < 0) return broken("write", direction)
    direction.done = true
    direction.active = true
  }
  const demote = (direction: Direction) => {
    if (direction.pipe !== undefined) pipes.give(direction.pipe)
    direction.pipe = undefined
    direction.streak = 0
  }

  const flush = (direction: Direction, pending: Uint8Array): Broken => {
    const written = libc.write(direction.to.fd, pending, pending.length)
    if (written < 0) return broken("write", direction)
    count(direction, written)
    direction.pending = written === pending.length ? undefined : pending.subarray(written)
  }
  const drain = (direction: Direction, pipe: Pipe): Broken => {
    const written = libc.splice(pipe.read, direction.to.fd, direction.held)
    if (written < 0) return broken("write", direction)
    count(direction, written)
    direction.held -= written
  }

  /** Through the buffer. Answers `"Again"` when there may be more. */
  const copy = (direction: Direction, other: Direction): Broken | "Again" => {
    const read = libc.read(direction.from.fd, buffer, bufferSize)
    if (read === 0) return end(direction, other)
    if (read < 0) return broken("read", direction)
    direction.streak = read === bufferSize ? direction.streak + 1 : 0
    if (direction.streak === promotion) {
      direction.streak = 0
      direction.pipe = pipes.take()
    }
    const written = libc.write(direction.to.fd, buffer, read)
    // The reason is asked first: nothing may come between.
    const failure = written < 0 ? broken("write", direction) : undefined
    if (failure !== undefined) return failure
    if (written < read) direction.pending = buffer.slice(Math.max(written, 0), read)
    if (written > 0) count(direction, written)
    return read === bufferSize ? "Again" : undefined
  }
  /** Through the empty pipe. */
  const move = (direction: Direction, other: Direction, pipe: Pipe): Broken | "Again" => {
    const read = libc.splice(direction.from.fd, pipe.write, pipes.room)
    if (read === 0) return end(direction, other)
    if (read < 0) return broken("read", direction)
    direction.held = read
    const failure = drain(direction, pipe)
    if (failure !== undefined) return failure
    direction.streak = read < little ? direction.streak + 1 : 0
    if (direction.streak >= demotion && direction.held === 0) demote(direction)
    return "Again"
  }

  return (direction, other) => {
    for (let round = 0; round < rounds; round++) {
      if (isFull(direction)) {
        const { pending, pipe } = direction
        const failure = pending !== undefined ? flush(direction, pending) : pipe && drain(direction, pipe)
        if (failure !== undefined) return failure
        if (isFull(direction)) return
      }
      if (direction.ended) return
      const result = direction.pipe === undefined ? copy(direction, other) : move(direction, other, direction.pipe)
      if (result !== "Again") return result
    }
  }
}

// internal

const bufferSize = 64 * 1024

/** Turns that one direction has before the others have theirs. */
const rounds = 16

/** Full buffers in a row after which it is bulk. */
const promotion = 4
/** Bytes that are too few for a pipe to be worth it, and how often in a row it takes to give it back. */
const little = 16 * 1024
const demotion = 64
