/**
 * One exchange between two sockets: in the main thread at first, in a relay thread once it has lasted.
 */
import * as InlineExchange from "./InlineExchange.js"
import type { Path, Progress } from "../../relay/Relay.js"
import type { Kernel } from "./Kernel.js"
import type { Side } from "./reactor/ReactorMessages.js"
import type { Reactor } from "./Reactor.js"
import type * as ReactorThread from "./ReactorThread.js"
import type { Buffers } from "./ReceiveBuffers.js"
import * as TcpInfo from "./TcpInfo.js"

/** How an exchange ended. `Undone`: nothing had come from `far`, see `Relay.undo`. */
export type Result = ReactorThread.Result | { readonly _tag: "Undone" }

export interface KernelExchange {
  /** Bytes carried so far. */
  readonly bytes: () => ReactorThread.Bytes
  /** Lets more bytes pass that come from this side. */
  readonly grant: (side: Side, bytes: number) => void
  /** The kernel's measurements of the far connection; the last ones after the end. */
  readonly path: () => Path | undefined
  /** Calls `use` with the descriptor of the far connection, unless it is closed. */
  readonly withFar: (use: (fd: number) => void) => void
  /** Calls the listener with the result once both descriptors are closed; at once if they are. Replaces an earlier listener. */
  readonly onEnd: (listener: (result: Result) => void) => void
  readonly progress: () => Progress
  readonly undo: () => boolean
  readonly commit: () => void
  /** Resets both sides, unless they are closed. */
  readonly abort: () => void
  /** So much time has passed. Ends the exchange when it was idle for the limit. */
  readonly tick: (millis: number) => void
}

export interface Options {
  readonly kernel: Kernel
  readonly reactor: Reactor
  /** Infinity for no limit. */
  readonly idleMillis: number
}

/** Returns what begins an exchange. It owns both sockets, and requests grants for sockets that have an allowance. */
export const make = ({
  idleMillis,
  kernel,
  reactor
}: Options): ((
  sockets: InlineExchange.Sockets,
  requestGrant: ReactorThread.ExchangeListener["requestGrant"],
  keeper?: InlineExchange.Keeper
) => KernelExchange) => {
  const beginInline = InlineExchange.make(kernel)
  return (sockets, requestGrant, keeper) => {
    let result: Result | undefined
    let listener: ((result: Result) => void) | undefined
    let inThread: ReactorThread.Exchange | undefined
    let idleForMillis = 0
    let path: Path | undefined
    const far = sockets[1].descriptor
    /** Once it has lasted. */
    let buffers: Buffers | undefined
    let bytesAtTick = 0
    const onClosing = () => {
      buffers?.close()
      path = TcpInfo.read(kernel.sockets, far)
    }
    const onEnd = (how: Result) => {
      result = how
      listener?.(how)
    }
    const inline = beginInline(sockets, {
      keeper,
      onClosing,
      onEnd,
      requestGrant,
      findSuccessor: () => {
        buffers ??= kernel.receiveBuffers.add(sockets[0].descriptor, far)
        const begin = reactor.pickThread()
        if (begin === undefined) return undefined
        return ([near, far]) => {
          inThread = begin(near, far, idleMillis, { onClosing, onEnd, requestGrant })
        }
      }
    })
    const bytes = () => {
      const [first, then] = [inline.bytes(), inThread?.bytes()]
      return { tx: first.tx + (then?.tx ?? 0), rx: first.rx + (then?.rx ?? 0) }
    }
    const tickBuffers = (buffers: Buffers) => {
      const { rx, tx } = bytes()
      buffers.tick(rx + tx !== bytesAtTick)
      bytesAtTick = rx + tx
    }
    return {
      bytes,
      grant: (side, bytes) => {
        if (inThread === undefined) inline.grant(side, bytes)
        else inThread.grant(side, bytes)
      },
      path: () => {
        if (result === undefined) path = TcpInfo.read(kernel.sockets, far)
        return path
      },
      withFar: (use) => {
        if (result === undefined) use(far)
      },
      onEnd: (added) => {
        if (result === undefined) listener = added
        else added(result)
      },
      // In a thread it has carried much: in which direction does not matter.
      progress: () => (inThread === undefined ? inline.progress() : { sent: true, received: true }),
      undo: () => {
        const undone = inThread === undefined && result === undefined && inline.undo()
        if (undone && result === undefined) onEnd({ _tag: "Undone" })
        return undone
      },
      commit: inline.commit,
      abort: () => {
        if (inThread === undefined) inline.end({ _tag: "Aborted" })
        else inThread.abort()
      },
      tick: (millis) => {
        if (result !== undefined) return
        if (buffers !== undefined) tickBuffers(buffers)
        // A relay thread looks at its exchanges itself.
        if (inThread !== undefined) return
        idleForMillis = inline.wasActive() ? 0 : idleForMillis + millis
        if (idleForMillis >= idleMillis) inline.end({ _tag: "Idle" })
      }
    }
  }
}
