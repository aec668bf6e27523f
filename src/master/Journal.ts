/**
 * The last entries of an endless sequence, numbered, for any number of readers that each read at their own pace.
 *
 * Entries are kept once for all readers, so a reader that never reads costs nothing.
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/** The result of one read. */
export interface Page<A> {
  readonly entries: ReadonlyArray<A>
  /** The number of the first entry. */
  readonly first: number
  /** Entries before `first` that were dropped before the reader asked for them. */
  readonly lost: number
}

export interface Journal<A> {
  /** Synchronous, for loggers. Drops the oldest entries beyond the limits. */
  readonly append: (entry: A) => void
  /** The number that the next entry will have; the first entry has 0. */
  readonly next: Effect.Effect<number>
  /** Entries from this number on, up to `limit`. Waits for the next entry if there is none; `None` after `close`. */
  readonly read: (from: number, limit: number) => Effect.Effect<Option.Option<Page<A>>>
  /** The last entries, up to `limit`. Does not wait. */
  readonly last: (limit: number) => Effect.Effect<ReadonlyArray<A>>
  /** Further entries are ignored; readers get the entries that they have not read, then `None`. */
  readonly close: Effect.Effect<void>
}

export interface Options<A> {
  /** Number of entries kept. */
  readonly limit: number
  /** Sum of the sizes of the entries kept; the last entry is kept whatever its size. */
  readonly size: { readonly limit: number; readonly of: (entry: A) => number }
}

export const make = <A>({ limit, size }: Options<A>): Journal<A> => {
  let entries: Array<A> = []
  /** The number of the first entry kept. */
  let first = 0
  let totalSize = 0
  let closed = false
  // Dropped entries stay at the front until there are `limit` of them: each entry is moved once at most.
  let dropped = 0
  const changed = Effect.unsafeMakeLatch(false)

  const next = () => first + entries.length - dropped
  const wakeReaders = () => {
    changed.unsafeOpen()
    changed.unsafeClose()
  }
  const append = (entry: A) => {
    if (closed) return
    entries.push(entry)
    totalSize += size.of(entry)
    while (entries.length - dropped > limit || (totalSize > size.limit && entries.length - dropped > 1)) {
      const oldest = entries[dropped]
      if (oldest !== undefined) totalSize -= size.of(oldest)
      dropped++
      first++
    }
    if (dropped > limit) {
      entries = entries.slice(dropped)
      dropped = 0
    }
    wakeReaders()
  }
  const read: Journal<A>["read"] = (from, limit) =>
    Effect.suspend(() => {
      if (from >= next()) return closed ? Effect.succeedNone : Effect.zipRight(changed.await, read(from, limit))
      const start = Math.max(from, first)
      const index = dropped + start - first
      return Effect.succeedSome({ entries: entries.slice(index, index + limit), first: start, lost: start - from })
    })
  return {
    append,
    next: Effect.sync(next),
    read,
    last: (limit) => Effect.sync(() => entries.slice(Math.max(dropped, entries.length - limit))),
    close: Effect.sync(() => {
      closed = true
      wakeReaders()
    })
  }
}
