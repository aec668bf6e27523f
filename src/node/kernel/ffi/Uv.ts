/**
 * The event loop of Node, by the functions of libuv that Node exports to native code, called through koffi: it calls back
 * when a descriptor of any kind is readable.
 *
 * Source: https://docs.libuv.org/en/v1.x/poll.html
 */
import { isMainThread } from "node:worker_threads"
import type { Libc } from "./Libc.js"

export interface Uv {
  /** Begins to watch nothing yet. `onReadable` is called in each turn of the loop while the descriptor is readable. */
  readonly poll: (fd: number, onReadable: () => void) => Poll | undefined
}

export interface Poll {
  /** From now on `onReadable` is called, and the loop does not end. */
  readonly start: () => void
  readonly stop: () => void
}

/**
 * `undefined` outside of the main thread, which alone has libuv's default loop, where a function is missing, and where Node
 * runs another loop.
 */
export const load = async (libc: Libc): Promise<Uv | undefined> => {
  const uv = isMainThread ? await find() : undefined
  return uv !== undefined && (await calls(uv, libc)) ? uv : undefined
}

// internal

const find = async (): Promise<Uv | undefined> => {
  const { default: koffi } = await import("koffi")
  try {
    const library = koffi.load(null)
    const defaultLoop: () => unknown = library.func("void* uv_default_loop()")
    const handleSize: (type: number) => number | bigint = library.func("size_t uv_handle_size(int)")
    const init: (loop: unknown, handle: unknown, fd: number) => number = library.func(
      "int uv_poll_init(void*, void*, int)"
    )
    const start: (handle: unknown, events: number, callback: unknown) => number = library.func(
      "int uv_poll_start(void*, int, void*)"
    )
    const stop: (handle: unknown) => number = library.func("int uv_poll_stop(void*)")
    const callbackType = koffi.pointer(koffi.proto("void", ["void *", "int", "int"]))
    const loop = defaultLoop()
    const size = Number(handleSize(UV_POLL))
    return {
      poll: (fd, onReadable) => {
        // Never freed: the loop refers to it until the process ends.
        const handle: unknown = koffi.alloc("uint8", size)
        if (init(loop, handle, fd) !== 0) return undefined
        const callback = koffi.register(() => {
          try {
            onReadable()
          } catch (error) {
            // Not into libuv: it is an exception that nobody has caught.
            setImmediate(() => {
              throw error
            })
          }
        }, callbackType)
        return {
          start: () => void start(handle, UV_READABLE, callback),
          stop: () => void stop(handle)
        }
      }
    }
  } catch {
    return undefined
  }
}

/** Whether it calls back for a descriptor that is readable. */
const calls = async (uv: Uv, libc: Libc): Promise<boolean> => {
  const fd = libc.eventfd()
  if (fd < 0) return false
  let poll: Poll | undefined
  const called = new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), patienceMillis)
    poll = uv.poll(fd, () => {
      clearTimeout(timer)
      resolve(true)
    })
    libc.write(fd, one, one.length)
    poll?.start()
  })
  const isCalled = await called
  poll?.stop()
  libc.close(fd)
  return isCalled
}

/** A loop that runs calls in its next turn. */
const patienceMillis = 1000
const one = new Uint8Array(new BigUint64Array([1n]).buffer)

const UV_POLL = 8
const UV_READABLE = 1
