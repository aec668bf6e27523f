/**
 * The memory that a relay thread shares with its owner: bytes carried, and what the worker has opened by itself.
 *
 * When the worker dies, the owner reads from here what is to be closed and freed.
 */

/** Exchanges that one worker can have at a time. */
export const maxExchanges = 32_768

/** Pipes that one worker can have. Each may hold 256 KiB, and Linux allows a user 64 MiB in all pipes. */
export const maxPipes = 64

export interface SharedState {
  readonly memory: SharedArrayBuffer
  /**
   * Bytes carried, two cells by slot: from near to far, then from far to near.
   *
   * A 64-bit float is written and read in one access, so no lock is needed.
   */
  readonly bytes: Float64Array
  /** The two BIOs of the worker's `TlsWire`; 0 while it has none. */
  readonly bios: BigUint64Array
  /**
   * Descriptors that the worker has opened: two for each pipe, then the epoll; 0 in an unused place.
   *
   * The worker removes a descriptor from here before it closes it. When the worker dies in between, one descriptor leaks,
   * but none is closed twice.
   */
  readonly descriptors: Int32Array
  /** One cell: `1` once the worker has left its loop. */
  readonly ended: Int32Array
}

export const make = (memory = new SharedArrayBuffer(endedOffset + 4)): SharedState => ({
  memory,
  bytes: new Float64Array(memory, 0, maxExchanges * 2),
  bios: new BigUint64Array(memory, biosOffset, 2),
  descriptors: new Int32Array(memory, descriptorsOffset, places),
  ended: new Int32Array(memory, endedOffset, 1)
})

/** The place of the epoll's descriptor in `descriptors`. */
export const epollPlace = maxPipes * 2

// internal

const places = epollPlace + 1
const biosOffset = maxExchanges * 16
const descriptorsOffset = biosOffset + 16
const endedOffset = descriptorsOffset + places * 4
