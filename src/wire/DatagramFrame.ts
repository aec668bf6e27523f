/**
 * Datagrams on a byte stream, each with its length and number, so that boundaries and order are kept and none is repeated.
 *
 * Source: docs/protocol.md §Datagrams.
 */

/** Bytes in front of each datagram: its length in two, its number in four, both big-endian. */
const headerBytes = 6

/** Datagrams that wait for a missing one, at most. */
const window = 64

export interface Encoder {
  /** Encodes datagrams in one chunk for one write. Their numbers continue from the previous call. */
  readonly encode: (datagrams: ReadonlyArray<Uint8Array>) => Uint8Array
}

export const makeEncoder = (): Encoder => {
  let number = 0
  return {
    encode(datagrams) {
      const whole = new Uint8Array(datagrams.reduce((length, bytes) => length + headerBytes + bytes.length, 0))
      const view = new DataView(whole.buffer)
      let at = 0
      for (const bytes of datagrams) {
        view.setUint16(at, bytes.length)
        view.setUint32(at + 2, number)
        whole.set(bytes, at + headerBytes)
        at += headerBytes + bytes.length
        number = (number + 1) >>> 0
      }
      return whole
    }
  }
}

export interface Decoder {
  /**
   * Returns the datagrams that these bytes complete, in the order of their numbers.
   *
   * A repeated datagram is ignored. Datagrams after a missing one wait until it arrives, or until the window is full.
   */
  readonly push: (chunk: Uint8Array) => ReadonlyArray<Uint8Array>
}

export const makeDecoder = (): Decoder => {
  const early = new Map<number, Uint8Array>()
  let pending: Uint8Array = new Uint8Array(0)
  let expected = 0

  const arrive = (number: number, bytes: Uint8Array, out: Array<Uint8Array>): void => {
    // Numbers wrap around after 2^32, so the signed distance shows which is ahead.
    const ahead = (number - expected) | 0
    if (ahead < 0 || early.has(number)) return
    early.set(number, bytes)
    if (ahead >= window) {
      const next = (number - window + 1) >>> 0
      const passed = [...early.keys()].filter((number) => ((number - next) | 0) < 0)
      for (const number of passed.toSorted((left, right) => (left - right) | 0)) release(number, out)
      expected = next
    }
    while (early.has(expected)) release(expected, out)
  }
  const release = (number: number, out: Array<Uint8Array>): void => {
    const bytes = early.get(number)
    if (bytes !== undefined) out.push(bytes)
    early.delete(number)
    expected = (number + 1) >>> 0
  }

  return {
    push(chunk) {
      const data = pending.length === 0 ? chunk : join(pending, chunk)
      const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
      const out: Array<Uint8Array> = []
      let at = 0
      while (data.length - at >= headerBytes) {
        const end = at + headerBytes + view.getUint16(at)
        if (end > data.length) break
        const number = view.getUint32(at + 2)
        const bytes = data.subarray(at + headerBytes, end)
        if (number === expected && early.size === 0) {
          expected = (expected + 1) >>> 0
          out.push(bytes)
        } else arrive(number, bytes.slice(), out)
        at = end
      }
      // Copied, so that the rest of a frame does not keep the whole chunk in memory.
      pending = data.slice(at)
      return out
    }
  }
}

// internal

const join = (left: Uint8Array, right: Uint8Array): Uint8Array => {
  const whole = new Uint8Array(left.length + right.length)
  whole.set(left)
  whole.set(right, left.length)
  return whole
}
