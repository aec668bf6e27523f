/**
 * A control connection while a session uses it, and the reasons why the connection or the session is over.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Schema from "effect/Schema"
import type { Connection } from "../transport/Transport.js"
import { type Dialect, maxMessageBytes } from "../wire/Dialect.js"

const sentences = {
  Ended: "the peer closed the control connection",
  Reset: "the control connection was reset",
  Silent: "the peer sent nothing for too long",
  MessageTooLong: `the peer sent a message longer than ${maxMessageBytes} bytes`,
  Tampered: "a message of the control connection was altered, removed, repeated or reordered on its way",
  Superseded: "the peer opened another control connection",
  Left: "the peer ended the session",
  Stopped: "this side ended the session",
  Away: "the peer did not resume the previous session in time"
} as const

const Reason = Schema.Literal(
  "Ended",
  "Reset",
  "Silent",
  "MessageTooLong",
  "Tampered",
  "Superseded",
  "Left",
  "Stopped",
  "Away"
)
export type Reason = typeof Reason.Type

/** A control connection is lost. The session may continue on another one. */
export class ControlLost extends Schema.TaggedError<ControlLost>()("ControlLost", { reason: Reason }) {
  override get message(): string {
    return sentences[this.reason]
  }
}

/** The session is over: one side ended it, or the peer did not come back in time after `reason`. */
export class SignalBusClosed extends Schema.TaggedError<SignalBusClosed>()("SignalBusClosed", { reason: Reason }) {
  override get message(): string {
    return sentences[this.reason]
  }
}

/** A control connection on which both sides have authenticated. */
export interface ControlConnection {
  readonly connection: Connection
  readonly dialect: Dialect
  /** The highest number of ours that the peer has handled. Defaults to none: the session is new. */
  readonly received?: number | undefined
}

/** A control connection in use. */
export interface Attached {
  readonly control: ControlConnection
  /** Completes once the connection is lost. */
  readonly lost: Deferred.Deferred<ControlLost>
  /** Whether it is lost: it is neither read nor written from then on. */
  isLost: boolean
}

export const attach = (control: ControlConnection): Attached => ({
  control,
  lost: Deferred.unsafeMake(FiberId.none),
  isLost: false
})

/** Gives the connection up. The first reason counts. */
export const lose = (attached: Attached, reason: Reason): void => {
  attached.isLost = true
  Deferred.unsafeDone(attached.lost, Effect.succeed(new ControlLost({ reason })))
}
