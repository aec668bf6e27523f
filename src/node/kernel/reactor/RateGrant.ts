/**
 * The share of a rate limit that one direction of an exchange has: bytes that it may read before it requests more.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Bucket } from "../../../relay/Throttle.js"

export interface RateGrant {
  /** Takes bytes from the bucket, waiting until it has some, and grants them. Does nothing while a request waits. */
  readonly request: () => void
  /** The exchange has ended after so many bytes: cancels the request and returns what was granted and not used. */
  readonly close: (passedBytes: number) => void
}

export interface Options {
  readonly bucket: Bucket
  /** Runs the wait for the bucket, and never before this call returns. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly grant: (bytes: number) => void
}

/** Bytes that a direction may read before its first grant. They count as debt, so short exchanges never ask. */
export const creditBytes = 4096

export const make = ({ bucket, fork, grant }: Options): RateGrant => {
  let grantedBytes = 0
  let waiting: Fiber.RuntimeFiber<void> | undefined
  const take = Effect.map(bucket.take(maxGrantBytes), (bytes) => {
    waiting = undefined
    grantedBytes += bytes
    grant(bytes)
  })
  return {
    request: () => {
      waiting ??= fork(take)
    },
    close: (passedBytes) => {
      waiting?.unsafeInterruptAsFork(waiting.id())
      bucket.refund(grantedBytes - passedBytes)
    }
  }
}

// internal

const maxGrantBytes = 1024 * 1024
