/**
 * Carries the messages between a relay thread and its owner: a ring of records each way in shared memory, and an eventfd
 * each way that wakes the other thread.
 *
 * The bytes that an exchange begins with have no room in a record. They go ahead of it as a message of Node.
 */
import type { Libc } from "../ffi/Libc.js"
import type { Command, Report } from "./ReactorMessages.js"
import * as ReactorRecords from "./ReactorRecords.js"
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

/** Over the memory that the other thread has made, or over memory of its own. */
export const make = (memory?: Memory): ReactorProtocol => {
  const commands = Ring.make(shape, memory?.commands)
  const reports = Ring.make(shape, memory?.reports)
  return { memory: { commands: commands.memory, reports: reports.memory }, commands, reports }
}

/** The owner's end. */
export interface OwnerEnd {
  readonly send: (command: Command) => void
  /** Calls `handle` with each report since the last call. Afterwards the next report wakes the owner. */
  readonly receive: (handle: (report: Report) => void) => void
  /** The worker has exited: later commands are dropped. */
  readonly close: () => void
}

export interface OwnerOptions {
  readonly libc: Libc
  /** The eventfd that wakes the worker. */
  readonly workerWake: number
  readonly post: (attachment: ReactorRecords.Attachment) => void
}

export const ownerEnd = (
  { commands, reports }: ReactorProtocol,
  { libc, post, workerWake }: OwnerOptions
): OwnerEnd => {
  const { flush, send } = makeSender(commands, libc, workerWake)
  let isRetrying = false
  let isOpen = true
  const retry = () => {
    isRetrying = isOpen && !flush()
    if (isRetrying) setImmediate(retry)
  }
  const sendRecord = (record: ReadonlyArray<number>) => {
    if (!isOpen || send(record) || isRetrying) return
    isRetrying = true
    setImmediate(retry)
  }
  // The first report must wake the owner, too.
  reports.maySleep()
  return {
    send: (command) => {
      const attachment = ReactorRecords.attachmentOf(command)
      if (attachment !== undefined) post(attachment)
      sendRecord(ReactorRecords.encodeCommand(command, attachment !== undefined))
    },
    receive: (handle) => {
      reports.markAwake()
      do {
        for (let record = reports.pop(); record !== undefined; record = reports.pop())
          handle(ReactorRecords.decodeReport(record))
      } while (!reports.maySleep())
    },
    close: () => {
      isOpen = false
    }
  }
}

/** The worker's end. */
export interface WorkerEnd {
  readonly receive: () => Command | undefined
  readonly send: (report: Report) => void
  /** Whether there is nothing to do. When `true`, the next command wakes the worker. */
  readonly maySleep: () => boolean
  /** The worker is awake: commands need not wake it. */
  readonly markAwake: () => void
}

export interface WorkerOptions {
  readonly libc: Libc
  /** The eventfd that wakes the owner. */
  readonly ownerWake: number
  readonly receiveAttachment: () => ReactorRecords.Attachment | undefined
}

export const workerEnd = (
  { commands, reports }: ReactorProtocol,
  { libc, ownerWake, receiveAttachment }: WorkerOptions
): WorkerEnd => {
  const { flush, send } = makeSender(reports, libc, ownerWake)
  return {
    receive: () => {
      const record = commands.pop()
      return record && ReactorRecords.decodeCommand(record, receiveAttachment)
    },
    send: (report) => void send(ReactorRecords.encodeReport(report)),
    maySleep: () => flush() && commands.maySleep(),
    markAwake: commands.markAwake
  }
}

// internal

const shape: Ring.Shape = { width: ReactorRecords.width, cells: 4096 }

const one = new Uint8Array(new BigUint64Array([1n]).buffer)

/** Sends records in order and wakes the consumer. Records that the ring has no room for wait here until `flush`. */
const makeSender = (ring: Ring.Ring, libc: Libc, consumerWake: number) => {
  const waiting: Array<ReadonlyArray<number>> = []
  /** Whether all records are in the ring. */
  const flush = (): boolean => {
    if (waiting.length === 0) return true
    for (let [first] = waiting; first !== undefined && ring.push(first); [first] = waiting) waiting.shift()
    if (ring.mustWake()) libc.write(consumerWake, one, one.length)
    return waiting.length === 0
  }
  const send = (record: ReadonlyArray<number>): boolean => {
    waiting.push(record)
    return flush()
  }
  return { send, flush }
}
