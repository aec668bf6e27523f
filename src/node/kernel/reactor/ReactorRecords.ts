/**
 * The messages between a relay thread and its owner as rows of numbers, which is what shared memory holds.
 *
 * The bytes that an exchange begins with have no room there: they are the attachment of its record.
 */
import type { Command, DetachedSocket, ExchangeResult, Report, Side } from "./ReactorMessages.js"

/** Numbers in the longest record. */
export const width = 10

/** The bytes that an exchange begins with. */
export interface Attachment {
  readonly near: SideAttachment
  readonly far: SideAttachment
}

/** Bytes that were read; of a TLS session also the records that were received, and those that were not sent. */
type SideAttachment = readonly [buffered: Uint8Array, received: Uint8Array, unsent: Uint8Array]

/** The bytes to be sent ahead of a command; `undefined` when there are none. */
export const attachmentOf = (command: Command): Attachment | undefined => {
  if (command._tag !== "BeginExchange") return undefined
  const attachment: Attachment = { near: bytesOf(command.near), far: bytesOf(command.far) }
  return [...attachment.near, ...attachment.far].some(({ length }) => length > 0) ? attachment : undefined
}

export const encodeCommand = (command: Command, isAttached: boolean): ReadonlyArray<number> => {
  switch (command._tag) {
    case "BeginExchange": {
      const { far, idleMillis, near, slot } = command
      const done = (near.done === true ? 1 : 0) + (far.done === true ? 2 : 0)
      const kind = isAttached ? kinds.beginAttached : kinds.begin
      return [kind, slot, idleMillis, done, ...encodeSocket(near), ...encodeSocket(far)]
    }
    case "GrantBytes":
      return [kinds.grant, command.slot, sides.indexOf(command.side), command.bytes]
    case "AbortExchange":
      return [kinds.abort, command.slot]
    case "StopWorker":
      return [kinds.stop]
    case "FailWorker":
      return [kinds.fail]
  }
}

/** `attachment` is called when the record has one. */
export const decodeCommand = (record: ReadonlyArray<number>, attachment: () => Attachment | undefined): Command => {
  const [kind = 0, slot = 0] = record
  if (kind === kinds.stop) return { _tag: "StopWorker" }
  if (kind === kinds.fail) return { _tag: "FailWorker" }
  if (kind === kinds.abort) return { _tag: "AbortExchange", slot }
  if (kind === kinds.grant) {
    const [, , side = 0, bytes = 0] = record
    return { _tag: "GrantBytes", slot, side: sideAt(side), bytes }
  }
  const attached = kind === kinds.beginAttached ? attachment() : undefined
  const [, , idleMillis = 0, done = 0] = record
  return {
    _tag: "BeginExchange",
    slot,
    near: { ...decodeSocket(record.slice(4, 7), attached?.near), done: (done & 1) !== 0 },
    far: { ...decodeSocket(record.slice(7, 10), attached?.far), done: (done & 2) !== 0 },
    idleMillis
  }
}

export const encodeReport = (report: Report): ReadonlyArray<number> => {
  if (report._tag === "GrantRequested") return [report.slot, grantRequested, sides.indexOf(report.side)]
  const { result, slot } = report
  const { errno, operation, side } = result._tag === "Broken" ? result : notBroken
  return [slot, results.indexOf(result._tag), sides.indexOf(side), operation === "read" ? 1 : 0, errno]
}

export const decodeReport = ([slot = 0, kind = 0, at = 0, read = 0, errno = 0]: ReadonlyArray<number>): Report => {
  const side = sideAt(at)
  if (kind === grantRequested) return { _tag: "GrantRequested", slot, side }
  const _tag = results[kind] ?? "Aborted"
  const result: ExchangeResult =
    _tag === "Broken" ? { _tag, side, operation: read === 1 ? "read" : "write", errno } : { _tag }
  return { _tag: "ExchangeEnded", slot, result }
}

// internal

const kinds = { begin: 1, beginAttached: 2, abort: 3, stop: 4, grant: 5, fail: 6 } as const
const results = ["Done", "Idle", "Aborted", "Broken"] as const
/** Stands where a result does. */
const grantRequested = results.length
const notBroken = { side: "near", operation: "read", errno: 0 } as const
const sides = ["near", "far"] as const
const noBytes = new Uint8Array(0)

const sideAt = (index: number): Side => sides[index] ?? "near"

const bytesOf = ({ buffered, tls }: DetachedSocket): SideAttachment => [
  buffered,
  tls?.received ?? noBytes,
  tls?.unsent ?? noBytes
]

/** A pointer has 48 bits: a number holds it. */
const encodeSocket = ({ allowance = Infinity, descriptor, tls }: DetachedSocket): ReadonlyArray<number> => [
  descriptor,
  Number(tls?.session ?? 0n),
  allowance
]

const decodeSocket = (
  [descriptor = 0, session = 0, allowance = 0]: ReadonlyArray<number>,
  [buffered, received, unsent]: SideAttachment = [noBytes, noBytes, noBytes]
): DetachedSocket =>
  session === 0
    ? { descriptor, buffered, allowance }
    : { descriptor, buffered, allowance, tls: { session: BigInt(session), received, unsent } }
