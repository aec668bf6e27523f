/**
 * Bounds the memory of the kernel's receive buffers. Linux lets the buffer of a fast connection grow to `tcp_rmem`, tens of
 * megabytes, and it fills up when the other side of the exchange does not read. A few hundred such exchanges would take all
 * memory that the system has for TCP, and every connection of the machine would stall.
 *
 * So the buffers of an exchange that lasts grow in turns of about a second, a few exchanges at a time, while bytes pass, and
 * not beyond a budget for all exchanges of the process. In between their sizes are locked.
 */
import * as Fs from "node:fs"
import { options, type Sockets } from "./ffi/Sockets.js"

export interface ReceiveBuffers {
  /** Bounds the buffers of these two descriptors until `close`, which is called before they are closed. */
  readonly add: (near: number, far: number) => Buffers
  /** Bytes in the buffers of all exchanges, if they were full. */
  readonly size: () => number
}

/** The buffers of one exchange. */
export interface Buffers {
  /** Called once a second. `isMoving`: bytes passed since the last call. */
  readonly tick: (isMoving: boolean) => void
  readonly close: () => void
}

export interface Options {
  /** Bytes beyond which no buffer grows. Defaults to a quarter of what TCP may use before the system saves memory. */
  readonly budget?: number | undefined
  /** Exchanges whose buffers grow at the same time. Defaults to `4`. */
  readonly turns?: number | undefined
}

export const make = (
  sockets: Pick<Sockets, "get" | "set">,
  { budget = defaultBudget(), turns = 4 }: Options = {}
): ReceiveBuffers => {
  const value = new Int32Array(1)
  const bytes = new Uint8Array(value.buffer)
  const sizeOf = (fd: number) => (sockets.get(fd, options.receiveBuffer, bytes) < 0 ? 0 : (value[0] ?? 0))
  const lock = (fds: ReadonlyArray<number>, flags: number) => {
    // Linux before 5.14 has no such option: there the buffers grow as `tcp_rmem` allows.
    for (const fd of fds) sockets.set(fd, options.bufferLock, flags)
  }
  let total = 0
  let growing = 0
  let waiting = 0

  return {
    size: () => total,
    add: (near, far) => {
      const fds = [near, far]
      let size = 0
      let state: "Growing" | "Waiting" | "Closed" = "Waiting"
      const measure = () => {
        const before = size
        size = sizeOf(near) + sizeOf(far)
        total += size - before
      }
      const tryToGrow = () => {
        if (growing >= turns || total >= budget) return
        growing++
        waiting--
        state = "Growing"
        lock(fds, 0)
      }
      const stop = () => {
        growing--
        waiting++
        state = "Waiting"
        lock(fds, receiveLocked)
      }

      waiting++
      measure()
      tryToGrow()
      if (state === "Waiting") lock(fds, receiveLocked)
      return {
        tick: (isMoving) => {
          if (state === "Waiting") {
            if (isMoving) tryToGrow()
            return
          }
          measure()
          if (waiting > 0 || total >= budget || !isMoving) stop()
        },
        close: () => {
          if (state === "Growing") growing--
          if (state === "Waiting") waiting--
          state = "Closed"
          total -= size
          size = 0
        }
      }
    }
  }
}

// internal

/** `SOCK_RCVBUF_LOCK`: the kernel does not change the size by itself. */
const receiveLocked = 2

const pageBytes = 4096

/** `tcp_mem` has three numbers of pages; from the second one on the system saves memory. */
const defaultBudget = (): number => {
  try {
    const [, pressure] = Fs.readFileSync("/proc/sys/net/ipv4/tcp_mem", "latin1").trim().split(/\s+/)
    return (Number(pressure) * pageBytes) / 4 || fallbackBudget
  } catch {
    return fallbackBudget
  }
}
const fallbackBudget = 64 * 1024 * 1024
