/**
 * What one way of an exchange has of a rate: it may read so many bytes, and asks for more.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Bucket } from "../../../relay/Throttle.js"

export interface RateGrant {
  /** Takes more from the bucket, and grants it once that has some. */
  readonly want: () => void
  /** It is over, and so many bytes have passed. */
  readonly settle: (passed: number) => void
}

export interface Options {
  readonly bucket: Bucket
  /** Runs what waits for the bucket; not before this call is over. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly grant: (bytes: number) => void
}

/** Bytes that may be read before the first grant, and are owed: who says little need not ask. */
export const credit = 4096

export const make = ({ bucket, fork, grant }: Options): RateGrant => {
  let granted = 0
  let taking: Fiber.RuntimeFiber<void> | undefined
  const take = Effect.map(bucket.take(most), (bytes) => {
    taking = undefined
    granted += bytes
    grant(bytes)
  })
  return {
    want: () => {
      taking ??= fork(take)
    },
    settle: (passed) => {
      taking?.unsafeInterruptAsFork(taking.id())
      bucket.refund(granted - passed)
    }
  }
}

// internal

/** Bytes in a grant. */
const most = 1024 * 1024
