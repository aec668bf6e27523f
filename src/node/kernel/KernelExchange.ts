/**
 * One exchange between two sockets: in this thread as it begins, and in a reactor's once it has lasted.
 */
import * as InlineExchange from "./InlineExchange.js"
import type { Path } from "../../relay/Relay.js"
import type { Kernel } from "./Kernel.js"
import type { Way } from "./reactor/SharedState.js"
import type { Reactor } from "./Reactor.js"
import type * as ReactorThread from "./ReactorThread.js"
import * as TcpInfo from "./TcpInfo.js"

export type Outcome = ReactorThread.Outcome

export interface KernelExchange {
  /** So far; asks nobody. */
  readonly bytes: () => ReactorThread.Bytes
  /** Lets more bytes pass. */
  readonly grant: (way: Way, bytes: number) => void
  /** How the far connection fares, or has fared. */
  readonly path: () => Path | undefined
  /** Does something to the descriptor of the far connection, unless it is closed. */
  readonly withFar: (act: (fd: number) => void) => void
  /** Says how it ended, once both descriptors are closed, or at once if they are. One listens at a time. */
  readonly onOver: (told: (outcome: Outcome) => void) => void
  /** Resets both sides, unless they are closed. */
  readonly abort: () => void
  /** So much time has passed: an exchange silent both ways for the limit is reset. */
  readonly tick: (millis: number) => void
}

export interface Options {
  readonly kernel: Kernel
  readonly reactor: Reactor
  /** Infinity for no limit. */
  readonly idleMillis: number
}

/** What begins an exchange, which owns both halves, and wants grants where they have an allowance. */
export const make = ({
  idleMillis,
  kernel,
  reactor
}: Options): ((halves: InlineExchange.Halves, want: ReactorThread.Told["want"]) => KernelExchange) => {
  const beginInline = InlineExchange.make(kernel)
  return (halves, want) => {
    let outcome: Outcome | undefined
    let told: ((outcome: Outcome) => void) | undefined
    let lasting: ReactorThread.Exchange | undefined
    let quietMillis = 0
    let path: Path | undefined
    const far = halves[1].descriptor
    const closing = () => {
      path = TcpInfo.read(kernel.sockets, far)
    }
    const over = (how: Outcome) => {
      outcome = how
      told?.(how)
    }
    const inline = beginInline(halves, {
      closing,
      over,
      want,
      offer: () => {
        const begin = reactor.prepare()
        if (begin === undefined) return undefined
        return ([near, far]) => {
          lasting = begin(near, far, idleMillis, { closing, over, want })
        }
      }
    })
    return {
      bytes: () => {
        const [first, then] = [inline.bytes(), lasting?.bytes()]
        return { tx: first.tx + (then?.tx ?? 0), rx: first.rx + (then?.rx ?? 0) }
      },
      grant: (way, bytes) => {
        if (lasting === undefined) inline.grant(way, bytes)
        else lasting.grant(way, bytes)
      },
      path: () => {
        if (outcome === undefined) path = TcpInfo.read(kernel.sockets, far)
        return path
      },
      withFar: (act) => {
        if (outcome === undefined) act(far)
      },
      onOver: (listener) => {
        if (outcome === undefined) told = listener
        else listener(outcome)
      },
      abort: () => {
        if (lasting === undefined) inline.end({ _tag: "Aborted" })
        else lasting.abort()
      },
      tick: (millis) => {
        if (lasting !== undefined || outcome !== undefined) return
        quietMillis = inline.wasActive() ? 0 : quietMillis + millis
        if (quietMillis >= idleMillis) inline.end({ _tag: "Idle" })
      }
    }
  }
}
