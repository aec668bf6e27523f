/**
 * The control connection that a bus uses now. While there is none, a grace runs, and the peer can come back.
 */
import { constVoid } from "effect/Function"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Deadlines } from "../core/Deadlines.js"
import {
  attach,
  type Attached,
  type ControlConnection,
  lose,
  type Reason,
  type SignalBusClosed
} from "./ControlConnection.js"

export interface Attachment {
  /** The control connection in use, or `undefined` while there is none. */
  readonly current: () => Attached | undefined
  /** Why the session is over, or `undefined` while it is not. */
  readonly closed: () => SignalBusClosed | undefined
  /** See `SignalBus.watch`. */
  readonly watch: (listener: (attached: boolean) => void) => () => void
  /** Uses this control connection in place of the current one, which is lost. Fails when the session is over. */
  readonly attach: (control: ControlConnection) => Either.Either<Attached, SignalBusClosed>
  /** Starts the grace if this connection is still the current one, and returns whether it was. */
  readonly detach: (attached: Attached, reason: Reason) => boolean
  /** Starts the grace of a session that has had no control connection here yet. */
  readonly awaitPeer: () => void
  /** Ends the session for good. Returns the control connection that was in use. */
  readonly close: (error: SignalBusClosed) => Attached | undefined
}

export interface Options {
  readonly deadlines: Deadlines["Type"]
  readonly grace: Duration.Duration
  /** Run when the grace is over, with the reason for which the connection was lost. */
  readonly onGraceOver: (reason: Reason) => Effect.Effect<void>
}

export const make = ({ deadlines, grace, onGraceOver }: Options): Attachment => {
  let state: State = { _tag: "Away", cancelGrace: constVoid }
  const watchers = new Set<(attached: boolean) => void>()
  const notify = (attached: boolean) => {
    for (const watcher of watchers) watcher(attached)
  }
  const startGrace = (reason: Reason) => {
    state = { _tag: "Away", cancelGrace: deadlines.after(grace, onGraceOver(reason)) }
  }
  const current = () => (state._tag === "Attached" ? state.attached : undefined)

  return {
    current,
    closed: () => (state._tag === "Closed" ? state.error : undefined),
    watch: (listener) => {
      watchers.add(listener)
      return () => watchers.delete(listener)
    },
    attach: (control) => {
      if (state._tag === "Closed") return Either.left(state.error)
      if (state._tag === "Attached") lose(state.attached, "Superseded")
      else state.cancelGrace()
      const attached = attach(control)
      state = { _tag: "Attached", attached }
      notify(true)
      return Either.right(attached)
    },
    detach: (attached, reason) => {
      if (current() !== attached) return false
      startGrace(reason)
      notify(false)
      return true
    },
    awaitPeer: () => startGrace("Away"),
    close: (error) => {
      const attached = current()
      if (state._tag === "Away") state.cancelGrace()
      state = { _tag: "Closed", error }
      notify(false)
      return attached
    }
  }
}

// internal

type State =
  | { readonly _tag: "Attached"; readonly attached: Attached }
  /** The grace runs once there was a control connection. */
  | { readonly _tag: "Away"; readonly cancelGrace: () => void }
  | { readonly _tag: "Closed"; readonly error: SignalBusClosed }
