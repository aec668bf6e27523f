/**
 * What a reactor's thread is told, and what it tells, through memory that both see.
 */
import type * as SharedState from "./SharedState.js"
import type { Libc } from "../ffi/Libc.js"
import * as Ring from "./Ring.js"

export interface ReactorProtocol {
  readonly memory: Memory
  readonly commands: Ring.Ring
  readonly reports: Ring.Ring
}

export interface Memory {
  readonly commands: SharedArrayBuffer
  readonly reports: SharedArrayBuffer
}

export const make = (memory?: Memory): ReactorProtocol => {
  const commands = Ring.make(shape, memory?.commands)
  const reports = Ring.make(shape, memory?.reports)
  return { memory: { commands: commands.memory, reports: reports.memory }, commands, reports }
}

/** The bytes that an exchange begins with, which take another way. */
export interface Ahead {
  readonly near: AheadOf
  readonly far: AheadOf
}

/** Read and not used yet, and of a TLS session records received and not sent. */
type AheadOf = readonly [ahead: Uint8Array, received: Uint8Array, unsent: Uint8Array]

/** The owner's end. */
export interface Office {
  readonly tell: (command: SharedState.Command) => void
  /** Gives what has been told since, and asks to be woken for more. */
  readonly hear: (each: (report: SharedState.Report) => void) => void
  /** The thread is gone: nothing more can be told. */
  readonly close: () => void
}

export interface OfficeOptions {
  readonly libc: Libc
  /** Wakes the thread. */
  readonly wake: number
  readonly post: (ahead: Ahead) => void
}

export const office = ({ commands, reports }: ReactorProtocol, { libc, post, wake }: OfficeOptions): Office => {
  const { flush, give } = giver(commands, libc, wake)
  let retrying = false
  let open = true
  const retry = () => {
    retrying = open && !flush()
    if (retrying) setImmediate(retry)
  }
  const tell = (record: ReadonlyArray<number>) => {
    if (!open || give(record) || retrying) return
    retrying = true
    setImmediate(retry)
  }
  // It is to be woken from the first report on.
  reports.maySleep()
  return {
    tell: (command) => {
      if (command._tag === "Grant") return tell([kinds.grant, command.slot, sideOf(command), command.bytes])
      if (command._tag !== "Begin") return tell([command._tag === "Stop" ? kinds.stop : kinds.abort, slotOf(command)])
      const { far, idleMillis, near, slot } = command
      const ahead: Ahead = { near: aheadOf(near), far: aheadOf(far) }
      const isAhead = [...ahead.near, ...ahead.far].some(({ length }) => length > 0)
      if (isAhead) post(ahead)
      const kind = isAhead ? kinds.beginAhead : kinds.begin
      const done = (near.done === true ? 1 : 0) + (far.done === true ? 2 : 0)
      const ends = [near, far].flatMap((half) => [half.descriptor, sessionOf(half), half.allowance ?? Infinity])
      tell([kind, slot, idleMillis, done, ...ends])
    },
    close: () => {
      open = false
    },
    hear: (each) => {
      reports.wakeUp()
      do {
        for (let record = reports.take(); record !== undefined; record = reports.take()) each(reportOf(record))
      } while (!reports.maySleep())
    }
  }
}

/** The thread's end. */
export interface Desk {
  readonly next: () => SharedState.Command | undefined
  readonly report: (report: SharedState.Report) => void
  /** Whether there is nothing to do, and the thread is woken when there is. */
  readonly maySleep: () => boolean
  readonly wakeUp: () => void
}

export interface DeskOptions {
  readonly libc: Libc
  /** Wakes the owner. */
  readonly bell: number
  readonly ahead: () => Ahead | undefined
}

export const desk = ({ commands, reports }: ReactorProtocol, { ahead, bell, libc }: DeskOptions): Desk => {
  const { flush, give } = giver(reports, libc, bell)
  return {
    next: () => {
      const record = commands.take()
      if (record === undefined) return undefined
      const [kind = 0, slot = 0] = record
      if (kind === kinds.stop) return { _tag: "Stop" }
      if (kind === kinds.abort) return { _tag: "Abort", slot }
      if (kind === kinds.grant) {
        const [, , side = 0, bytes = 0] = record
        return { _tag: "Grant", slot, way: sides[side] ?? "near", bytes }
      }
      const came = kind === kinds.beginAhead ? ahead() : undefined
      const [, , idleMillis = 0, done = 0] = record
      return {
        _tag: "Begin",
        slot,
        near: { ...halfOf(record.slice(4, 7), came?.near), done: (done & 1) !== 0 },
        far: { ...halfOf(record.slice(7, 10), came?.far), done: (done & 2) !== 0 },
        idleMillis
      }
    },
    report: (report) => {
      if (report._tag === "Want") return void give([report.slot, wanting, sideOf(report)])
      const { outcome, slot } = report
      const { errno, operation, side } = outcome._tag === "Broken" ? outcome : whole
      give([slot, tags.indexOf(outcome._tag), sides.indexOf(side), operation === "read" ? 1 : 0, errno])
    },
    maySleep: () => flush() && commands.maySleep(),
    wakeUp: commands.wakeUp
  }
}

// internal

const shape: Ring.Shape = { width: 10, room: 4096 }

const kinds = { begin: 1, beginAhead: 2, abort: 3, stop: 4, grant: 5 } as const
const tags = ["Done", "Idle", "Aborted", "Broken"] as const
const wanting = tags.length
const sides = ["near", "far"] as const
const whole = { side: "near", operation: "read", errno: 0 } as const
const nothing = new Uint8Array(0)
const one = new Uint8Array(new BigUint64Array([1n]).buffer)

const aheadOf = ({ ahead, tls }: SharedState.Half): AheadOf => [ahead, tls?.received ?? nothing, tls?.unsent ?? nothing]
/** A pointer has 48 bits. */
const sessionOf = ({ tls }: SharedState.Half) => Number(tls?.session ?? 0n)

const halfOf = (
  [descriptor = 0, session = 0, allowance = 0]: ReadonlyArray<number>,
  [ahead, received, unsent]: AheadOf = [nothing, nothing, nothing]
): SharedState.Half =>
  session === 0
    ? { descriptor, ahead, allowance }
    : { descriptor, ahead, allowance, tls: { session: BigInt(session), received, unsent } }

const slotOf = (command: SharedState.Abort | SharedState.Stop) => (command._tag === "Abort" ? command.slot : 0)

const sideOf = ({ way }: SharedState.Grant | SharedState.Want) => sides.indexOf(way)

const reportOf = ([slot = 0, tag = 0, at = 0, read = 0, errno = 0]: ReadonlyArray<number>): SharedState.Report => {
  const side = sides[at] ?? "near"
  if (tag === wanting) return { _tag: "Want", slot, way: side }
  const kind = tags[tag] ?? "Aborted"
  const outcome: SharedState.Outcome =
    kind === "Broken" ? { _tag: kind, side, operation: read === 1 ? "read" : "write", errno } : { _tag: kind }
  return { _tag: "Over", slot, outcome }
}

/** Gives in order, and wakes the taker. What there is no room for waits to be flushed, which answers whether all is given. */
const giver = (ring: Ring.Ring, libc: Libc, bell: number) => {
  const waiting: Array<ReadonlyArray<number>> = []
  const flush = (): boolean => {
    if (waiting.length === 0) return true
    for (let [first] = waiting; first !== undefined && ring.give(first); [first] = waiting) waiting.shift()
    if (ring.mustWake()) libc.write(bell, one, one.length)
    return waiting.length === 0
  }
  const give = (record: ReadonlyArray<number>): boolean => {
    waiting.push(record)
    return flush()
  }
  return { give, flush }
}
