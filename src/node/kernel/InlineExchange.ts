/**
 * An exchange in the main thread. Every exchange begins here: most end soon, and to wake another thread twice costs more.
 *
 * An exchange that lasts, by bytes or by events, is handed over to a relay thread.
 */
import type { Kept } from "../../relay/Kept.js"
import type { Progress } from "../../relay/Relay.js"
import type { Kernel } from "./Kernel.js"
import * as KernelSocket from "./KernelSocket.js"
import * as KernelTls from "./KernelTls.js"
import * as Pump from "./reactor/Pump.js"
import type { DetachedSocket, ExchangeResult, Side } from "./reactor/ReactorMessages.js"
import type { Bytes, ExchangeListener } from "./ReactorThread.js"

export interface InlineExchange {
  readonly bytes: () => Bytes
  /** Lets more bytes pass that come from this side. */
  readonly grant: (side: Side, bytes: number) => void
  /** Whether bytes moved, or a grant was awaited, since the last call. */
  readonly wasActive: () => boolean
  /** What the exchange has carried; the rest of it is not known once it was handed over. */
  readonly progress: () => Progress
  /** See `Relay.undo`. Whether it did. `near` is open if it was to be kept. */
  readonly undo: () => boolean
  /** From now on nothing is kept. */
  readonly commit: () => void
  /** Ends the exchange with this result. Does nothing when it has ended or was handed over. */
  readonly end: (result: ExchangeResult) => void
}

/** Whom `near` goes back to when an exchange is undone. */
export interface Keeper {
  readonly kept: Kept
  /** `near` is watched by the poller. `done`: its end was read. */
  readonly giveBack: (near: DetachedSocket) => void
}

export type Sockets = readonly [near: DetachedSocket, far: DetachedSocket]

export interface Options extends ExchangeListener {
  /** Keeps what comes from `near`, and gets it back when the exchange is undone. Defaults to nothing. */
  readonly keeper?: Keeper | undefined
  /** Called when the exchange has lasted. Returns what takes it over, or `undefined` when nothing can now. */
  readonly findSuccessor: () => ((sockets: Sockets) => void) | undefined
}

/** Returns what begins an exchange. An exchange owns its descriptors, which the poller watches, until it ends or is handed over. */
export const make = (kernel: Kernel): ((sockets: Sockets, options: Options) => InlineExchange) => {
  const { libc, poller } = kernel
  const advance = Pump.makeAdvance({
    libc,
    isClosedWhenDone: true,
    pipes: { capacity: 0, acquire: () => undefined, release: () => undefined }
  })

  return (sockets, { findSuccessor, keeper, onClosing, onEnd, requestGrant }) => {
    const [near, far] = sockets
    const cells = new Float64Array(2)
    const endpoint = (side: Side, socket: DetachedSocket): Pump.Endpoint => ({
      side,
      fd: socket.descriptor,
      tls: KernelTls.attach(kernel, socket)
    })
    const endpoints = { near: endpoint("near", near), far: endpoint("far", far) }
    const counters = [
      { cells, index: 0 },
      { cells, index: 1 }
    ] as const
    const [forward, backward] = Pump.pair([endpoints.near, endpoints.far], counters, sockets, requestGrant)
    if (keeper !== undefined) {
      forward.kept = keeper.kept
      if (near.buffered.length > 0) keeper.kept.add(near.buffered)
    }
    const hasReceived = () => (cells[1] ?? 0) > 0 || backward.ended || backward.pending !== undefined
    let isOpen = true
    let isActive = true
    let events = 0
    const totalBytes = () => (cells[0] ?? 0) + (cells[1] ?? 0)

    // Ending

    const end = (result: ExchangeResult) => {
      if (!isOpen) return
      isOpen = false
      for (const { fd, tls } of [endpoints.near, endpoints.far]) {
        poller.forget(fd)
        tls?.detach()
      }
      onClosing()
      const how = result._tag === "Done" ? "End" : "Reset"
      for (const socket of sockets) KernelSocket.closeDetached(kernel, socket, how)
      onEnd(result)
    }
    const undo = () => {
      const chunks = keeper?.kept.chunks()
      if (!isOpen || hasReceived() || (keeper !== undefined && chunks === undefined)) return false
      if (keeper === undefined || chunks === undefined) {
        end({ _tag: "Aborted" })
        return true
      }
      isOpen = false
      poller.forget(endpoints.far.fd)
      for (const { tls } of [endpoints.near, endpoints.far]) tls?.detach()
      onClosing()
      KernelSocket.closeDetached(kernel, far, "Reset")
      keeper.giveBack({ ...near, buffered: Buffer.concat(chunks), done: forward.ended })
      return true
    }
    /** Returns whether the exchange was handed over. */
    const handOver = (): boolean => {
      const takeOver = findSuccessor()
      if (takeOver === undefined) return false
      isOpen = false
      for (const { fd } of [endpoints.near, endpoints.far]) poller.unwatch(fd)
      takeOver([detach(forward), detach(backward)])
      return true
    }

    // Moving bytes

    /** Moves all that can be moved now: the poller reports a change once. */
    const run = () => {
      if (!isOpen) return
      events++
      const limit = totalBytes() + maxBytesPerRun
      do {
        forward.active = false
        backward.active = false
        const failure = advance(forward) ?? advance(backward)
        if (failure !== undefined) return end(failure)
        if (hasReceived()) keeper?.kept.drop()
        if (forward.done && backward.done) return end({ _tag: "Done" })
        isActive ||= forward.active || backward.active
        if (totalBytes() > limit) {
          if (!handOver()) setImmediate(run)
          return
        }
      } while (forward.active || backward.active)
      if (events > maxEvents && keeper?.kept.isKeeping() !== true) handOver()
    }

    for (const { fd } of [endpoints.near, endpoints.far]) poller.setHandler(fd, { handle: run })
    run()
    return {
      bytes: () => ({ tx: cells[0] ?? 0, rx: cells[1] ?? 0 }),
      grant: (side, bytes) => {
        Pump.grant(side === "near" ? forward : backward, bytes)
        run()
      },
      progress: () => ({
        sent: (cells[0] ?? 0) > 0 || forward.ended || forward.pending !== undefined,
        received: hasReceived()
      }),
      undo,
      commit: () => keeper?.kept.drop(),
      wasActive: () => {
        const wasActive = isActive || forward.grantRequested || backward.grantRequested
        isActive = false
        return wasActive
      },
      end
    }
  }
}

// internal

/** Bytes in one run, and events in all, after which an exchange counts as lasting. */
const maxBytesPerRun = 256 * 1024
const maxEvents = 8

const noBytes = new Uint8Array(0)

/** The source of a direction, for another thread. */
const detach = ({ allowance, done, from, pending }: Pump.Pump): DetachedSocket => ({
  descriptor: from.fd,
  buffered: pending ?? noBytes,
  tls: from.tls?.detach(),
  done,
  allowance
})
