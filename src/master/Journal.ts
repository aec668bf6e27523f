/**
 * The last entries of something that goes on, numbered, for any number of readers who each go at a pace of their own.
 *
 * What a reader has not read is kept once for all of them, so that one who never reads costs nothing.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/** What a reader gets at once. */
export interface Page<A> {
  readonly entries: ReadonlyArray<A>
  /** The number of the first of them. */
  readonly first: number
  /** Entries before them that the reader came too late for. */
  readonly lost: number
}

export interface Journal<A> {
  /** At once, so that loggers can; drops the oldest entries when there are too many. */
  readonly append: (entry: A) => void
  /** The number that the next entry will have; the first has 0. */
  readonly next: Effect.Effect<number>
  /** Entries from this number on, up to `limit`; waits while there is none. `None` when there will be none. */
  readonly read: (from: number, limit: number) => Effect.Effect<Option.Option<Page<A>>>
  /** The last ones, up to `limit`; waits for none. */
  readonly last: (limit: number) => Effect.Effect<ReadonlyArray<A>>
  /** There will be no more; readers who have read everything are told. */
  readonly close: Effect.Effect<void>
}

export interface Options<A> {
  /** Entries kept. */
  readonly limit: number
  /** Sum of sizes kept. */
  readonly size: { readonly limit: number; readonly of: (entry: A) => number }
}

export const make = <A>({ limit, size }: Options<A>): Journal<A> => {
  let entries: Array<A> = []
  let first = 0
  let kept = 0
  let closed = false
  // Dropped ones stay in front until they are as many as the others: each entry is moved once at most.
  let gone = 0
  const written = Effect.unsafeMakeLatch(false)

  const next = () => first + entries.length - gone
  const wake = () => {
    written.unsafeOpen()
    written.unsafeClose()
  }
  const append = (entry: A) => {
    if (closed) return
    entries.push(entry)
    kept += size.of(entry)
    while (entries.length - gone > limit || (kept > size.limit && entries.length - gone > 1)) {
      const oldest = entries[gone]
      if (oldest !== undefined) kept -= size.of(oldest)
      gone++
      first++
    }
    if (gone > limit) {
      entries = entries.slice(gone)
      gone = 0
    }
    wake()
  }
  const read: Journal<A>["read"] = (from, limit) =>
    Effect.suspend(() => {
      if (from >= next()) return closed ? Effect.succeedNone : Effect.zipRight(written.await, read(from, limit))
      const start = Math.max(from, first)
      const at = gone + start - first
      return Effect.succeedSome({ entries: entries.slice(at, at + limit), first: start, lost: start - from })
    })
  return {
    append,
    next: Effect.sync(next),
    read,
    last: (limit) => Effect.sync(() => entries.slice(Math.max(gone, entries.length - limit))),
    close: Effect.sync(() => {
      closed = true
      wake()
    })
  }
}
