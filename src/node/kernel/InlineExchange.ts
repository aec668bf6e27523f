/**
 * An exchange as it begins: carried by this thread, since most are over soon, and to wake another one twice is dear.
 *
 * What lasts, in bytes or in turns, is given to a reactor.
 */
import * as Pump from "./reactor/Pump.js"
import type { Kernel } from "./Kernel.js"
import * as KernelConnection from "./KernelConnection.js"
import * as KernelTls from "./KernelTls.js"
import type * as SharedState from "./reactor/SharedState.js"
import type { Bytes, Told } from "./ReactorThread.js"

export interface InlineExchange {
  readonly bytes: () => Bytes
  /** Lets more bytes pass. */
  readonly grant: (way: SharedState.Way, bytes: number) => void
  /** Whether anything was moved since this was last asked. */
  readonly wasActive: () => boolean
  /** Resets both sides, unless they are closed, and says so. */
  readonly end: (outcome: SharedState.Outcome) => void
}

/** Both halves of an exchange. */
export type Halves = readonly [near: SharedState.Half, far: SharedState.Half]

export interface Options extends Told {
  /** Whether somebody will have it, for good, now that it has lasted. */
  readonly offer: () => ((halves: Halves) => void) | undefined
}

/** Owns the descriptors, which the poller watches, and begins at once. */
export const make = (kernel: Kernel): ((halves: Halves, options: Options) => InlineExchange) => {
  const { libc, poller } = kernel
  const pump = Pump.makeMove({
    libc,
    isClosedAtOnce: true,
    pipes: { room: 0, take: () => undefined, give: () => undefined }
  })

  return (halves, { closing, offer, over, want }) => {
    const [near, far] = halves
    const cells = new Float64Array(2)
    const end = (side: "near" | "far", half: SharedState.Half): Pump.End => ({
      side,
      fd: half.descriptor,
      tls: KernelTls.resume(kernel, half)
    })
    const ends = { near: end("near", near), far: end("far", far) }
    const counters = [
      { cells, at: 0 },
      { cells, at: 1 }
    ] as const
    const [there, back] = Pump.pair([ends.near, ends.far], counters, halves, want)
    let open = true
    let turns = 0
    let active = true

    const leave = () => {
      open = false
      for (const { fd, tls } of [ends.near, ends.far]) {
        poller.drop(fd)
        tls?.rest()
      }
    }
    const settle = (outcome: SharedState.Outcome) => {
      if (!open) return
      leave()
      closing()
      for (const half of halves) KernelConnection.closeHalf(kernel, half, outcome._tag !== "Done")
      over(outcome)
    }
    const release = (direction: Pump.Pump): SharedState.Half => ({
      descriptor: direction.from.fd,
      ahead: direction.pending ?? none,
      tls: direction.from.tls?.rest(),
      done: direction.done,
      allowance: direction.allowance
    })
    const giveAway = (): boolean => {
      const take = offer()
      if (take === undefined) return false
      open = false
      for (const { fd } of [ends.near, ends.far]) poller.forget(fd)
      take([release(there), release(back)])
      return true
    }

    /** Moves all that can be moved now: it is told of a change only once. */
    const go = () => {
      if (!open) return
      turns++
      const most = bytes() + burst
      do {
        there.active = false
        back.active = false
        const failure = pump(there) ?? pump(back)
        if (failure !== undefined) return settle(failure)
        if (there.done && back.done) return settle({ _tag: "Done" })
        active ||= there.active || back.active
        if (bytes() > most) {
          if (!giveAway()) setImmediate(go)
          return
        }
      } while (there.active || back.active)
      if (turns > lasting) giveAway()
    }
    const bytes = () => (cells[0] ?? 0) + (cells[1] ?? 0)

    for (const { fd } of [ends.near, ends.far]) poller.pass(fd, go)
    go()
    return {
      bytes: () => ({ tx: cells[0] ?? 0, rx: cells[1] ?? 0 }),
      grant: (way, bytes) => {
        Pump.grant(way === "near" ? there : back, bytes)
        go()
      },
      wasActive: () => {
        const was = active || there.asked || back.asked
        active = false
        return was
      },
      end: settle
    }
  }
}

// internal

/** Bytes in one go, and times that something happened, after which it lasts. */
const burst = 256 * 1024
const lasting = 8

const none = new Uint8Array(0)
