/**
 * Tests whether the master can connect to an address, and how long that takes.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Address from "../core/Address.js"
import { Transport } from "../transport/Transport.js"

export interface Result {
  readonly connected: boolean
  /** Milliseconds; 0 when not connected. */
  readonly latency: number
  readonly error: string | null
}

/** Returns the test. At most 10 run at a time; a further one waits a second for its turn, then reports an error. */
export const make: Effect.Effect<(address: Address.Address) => Effect.Effect<Result>, never, Transport> = Effect.gen(
  function* () {
    const transport = yield* Transport
    const permits = yield* Effect.makeSemaphore(maxConcurrent)
    return (address) => {
      const connect = transport.connect(address).pipe(
        Effect.scoped,
        Effect.timeoutFail({
          duration: timeout,
          onTimeout: () => ({ message: `no answer within ${Duration.format(timeout)}` })
        }),
        Effect.timed,
        Effect.match({
          onFailure: ({ message }) => failure(message),
          onSuccess: ([took]) => ({ connected: true, latency: Math.round(Duration.toMillis(took)), error: null })
        })
      )
      return Effect.acquireUseRelease(
        Effect.interruptible(Effect.timeoutOption(permits.take(1), maxWait)),
        Option.match({
          onNone: () => Effect.succeed(failure(`too many tests at a time; the limit is ${maxConcurrent}`)),
          onSome: () => connect
        }),
        (permit) => (Option.isSome(permit) ? permits.release(1) : Effect.void)
      )
    }
  }
)

// internal

const maxConcurrent = 10
const maxWait = Duration.seconds(1)
const timeout = Duration.seconds(5)

const failure = (error: string): Result => ({ connected: false, latency: 0, error })
