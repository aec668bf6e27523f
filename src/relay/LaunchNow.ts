/**
 * Launches without a fiber: over a stream, by one dial of a target. All others are for `Egress.launch`.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as FiberSet from "effect/FiberSet"
import { constFalse } from "effect/Function"
import type { Address } from "../core/Address.js"
import type { StreamHandle } from "../stream/StreamHandle.js"
import type { Dialler, OwnedByCaller } from "../transport/Transport.js"
import type { Launch } from "../wire/Signal.js"
import { type Attendant, logOutcome, type Outcome, Relay } from "./Relay.js"
import { Slots } from "./Slots.js"
import { type DialNow, Targets } from "./Targets.js"

/** The stream of a launch, which nothing is joined with yet. */
export interface LaunchedStream {
  readonly handle: StreamHandle
  /** Sets what is called when the other side resets it, at once if it has. */
  readonly onOver: (ended: () => void) => void
  /** Serves it by `launch` instead, from the beginning. */
  readonly serveByFiber: () => void
}

/** Returns what serves a launch, unless it returns `false`: then it has begun nothing. At most `maxDials` are under way. */
export const make = (maxDials: number) =>
  Effect.gen(function* () {
    const { exchangeNow } = yield* Relay
    const { acquireNow } = yield* Slots
    const { dialNow } = yield* Targets
    const run = yield* FiberSet.makeRuntime()
    const isTraced = yield* FiberRef.get(FiberRef.currentTracerEnabled)
    if (exchangeNow === undefined || isTraced) return constFalse
    const parts: LaunchParts = { dials: 0, exchangeNow, run }
    return ({ protocol, visitor }: Launch, stream: LaunchedStream): boolean => {
      if (protocol !== "tcp" || parts.dials >= maxDials) return false
      const release = acquireNow()
      if (release === undefined) return false
      const launch = new LaunchNow(parts, visitor, stream, release)
      const dial = dialNow(visitor, launch)
      if (dial !== undefined) launch.began(dial)
      else {
        launch.dialled()
        release()
      }
      return dial !== undefined
    }
  })

// internal

interface LaunchParts {
  /** Dials under way. */
  dials: number
  readonly exchangeNow: NonNullable<Relay["Type"]["exchangeNow"]>
  readonly run: (effect: Effect.Effect<void>) => void
}

/** A launch without a fiber. A class, since there are many, and closures would take memory for each. */
class LaunchNow implements Attendant, Dialler {
  private readonly parts: LaunchParts
  private readonly visitor: Address
  /** Frees its slot. */
  private readonly release: () => void
  /** Until the dial has ended. */
  private stream: LaunchedStream | undefined
  private dial: DialNow | undefined
  /** From then on. */
  private handle: StreamHandle | undefined
  private target: OwnedByCaller | undefined
  private leaveTarget: (() => void) | undefined
  private isEnded = false

  constructor(parts: LaunchParts, visitor: Address, stream: LaunchedStream, release: () => void) {
    this.parts = parts
    this.visitor = visitor
    this.stream = stream
    this.release = release
    parts.dials++
  }
  /** The dial is under way, unless it has ended already. */
  began(dial: DialNow) {
    const { stream } = this
    if (stream !== undefined) {
      this.dial = dial
      stream.onOver(() => this.left())
    } else if (this.isEnded) dial.leave()
    else if (this.target !== undefined) this.leaveTarget = dial.leave
  }
  /** The dial has ended. Returns the stream, the first time. */
  dialled(): LaunchedStream | undefined {
    const { stream } = this
    if (stream === undefined) return undefined
    this.stream = undefined
    this.dial = undefined
    this.parts.dials--
    return stream
  }

  // As a dialler

  opened(target: OwnedByCaller) {
    this.leaveTarget = this.dial?.leave
    const stream = this.dialled()
    if (stream === undefined) return target.close()
    this.handle = stream.handle
    this.target = target
    if (this.parts.exchangeNow(target, this)) return
    // The stream is over, or the connection is broken already: a fiber finds out which.
    this.end()
    stream.serveByFiber()
  }
  /** From the beginning, by a fiber, which finds out why, and counts and logs it. */
  failed() {
    const stream = this.dialled()
    if (stream === undefined) return
    this.release()
    stream.serveByFiber()
  }

  /** The visitor has left. */
  private left() {
    const { dial } = this
    if (this.dialled() === undefined) return
    dial?.cancel()
    this.release()
  }
  private end() {
    this.isEnded = true
    this.release()
    this.target?.close()
    this.leaveTarget?.()
  }

  // As who wants the exchange

  open() {
    return this.handle
  }
  ended(outcome: Outcome) {
    this.end()
    if (outcome !== undefined) this.parts.run(logOutcome(outcome, String(this.visitor), "target"))
  }
}
