/**
 * The frames of carriers: a header of 8 bytes, and a payload. Source: docs/protocol.md §Streams.
 */

/** Bytes of a header: type, flags, size of the payload (2), stream (4). */
export const headerBytes = 8

/** The first byte of a frame. */
export const types = {
  open: 1,
  data: 2,
  end: 3,
  reset: 4,
  credit: 5,
  move: 6,
  moved: 7,
  stay: 8,
  ack: 9,
  attach: 10,
  ping: 11
} as const

/** The most bytes in the payload of a `data` frame. */
export const maxDataBytes = 16 * 1024
/** The most bytes in the payload of an `open` frame. */
export const maxOpenBytes = 504

/** Bytes of the payload, by type, where they are fixed. */
export const payloadBytes: Readonly<Record<number, number>> = {
  [types.end]: 0,
  [types.reset]: 1,
  [types.credit]: 4,
  [types.move]: 10,
  [types.moved]: 6,
  [types.stay]: 0,
  [types.ack]: 6,
  [types.ping]: 0
}

/** Why a stream was reset: the payload of a `reset` frame. A reader takes an unknown code for `broken`. */
export const resets = {
  /** The connection of the visitor or of the target was reset or failed. */
  broken: 0,
  /** No target could be reached. */
  target: 1,
  /** Every slot is in use. */
  slots: 2,
  /** Silent for longer than `read` allows. */
  idle: 3,
  /** The side stops, or the session is over. */
  stopped: 4
} as const

export const maxStream = 0xffff_ffff

const high = 0x1_0000_0000
/** How many numbers of 48 bits there are. */
export const uint48s = high * 0x1_0000

/** Writes the lowest 48 bits of a number. */
export const setUint48 = (view: DataView, at: number, value: number): void => {
  view.setUint16(at, Math.floor(value / high))
  view.setUint32(at + 2, value % high)
}

export const getUint48 = (view: DataView, at: number): number => view.getUint16(at) * high + view.getUint32(at + 2)

/** The number whose lowest 48 bits are `low`, next to `base`. */
export const nextTo = (base: number, low: number): number => {
  const ahead = (low - (base % uint48s) + uint48s) % uint48s
  return base + (ahead < uint48s / 2 ? ahead : ahead - uint48s)
}

export const setHeader = (view: DataView, at: number, type: number, size: number, stream: number): void => {
  view.setUint8(at, type)
  view.setUint8(at + 1, 0)
  view.setUint16(at + 2, size)
  view.setUint32(at + 4, stream)
}

/** How a connection begins to be a carrier: the first bytes of each direction, which no offset counts. */
export interface Attach {
  /** The number of the carrier. */
  readonly carrier: number
  /** Counts the connections that the carrier was attached to. The highest wins. */
  readonly attempt: number
  /** Bytes that its sender has received on this carrier so far. `undefined`: the carrier is over. */
  readonly received: number | undefined
}

/** Bytes of an `attach` frame. */
export const attachBytes = headerBytes + 10

export const encodeAttach = ({ attempt, carrier, received }: Attach): Uint8Array => {
  const bytes = new Uint8Array(attachBytes)
  const view = new DataView(bytes.buffer)
  setHeader(view, 0, types.attach, attachBytes - headerBytes, carrier)
  view.setUint8(1, received === undefined ? over : 0)
  view.setUint32(headerBytes, attempt)
  setUint48(view, headerBytes + 4, received ?? 0)
  return bytes
}

/** `undefined` when the bytes are another frame. */
export const decodeAttach = (bytes: Uint8Array): Attach | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint8(0) !== types.attach || view.getUint16(2) !== attachBytes - headerBytes) return undefined
  return {
    carrier: view.getUint32(4),
    attempt: view.getUint32(headerBytes),
    received: view.getUint8(1) === over ? undefined : getUint48(view, headerBytes + 4)
  }
}

// internal

/** The flags of an `attach` frame of a carrier that is over. */
const over = 1
