/**
 * The master's events as server-sent events, for any number of subscribers. A slow one loses events and delays no other.
 *
 * Each page of events is encoded once, as bytes that all subscribers send.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as EventEncoding from "./EventEncoding.js"
import * as EventRounds from "./EventRounds.js"
import type { Event, Instance } from "./Instance.js"
import type { Journal } from "./Journal.js"

export interface EventStream {
  /**
   * The events after `lastId`. If that event is unknown: all instances as `initial`, `keyEntry` last, then new events.
   *
   * Sends a comment after each 15 s without events. Ends with the journal, and when the key is renewed.
   */
  readonly subscribe: (options: {
    readonly lastId: Option.Option<string>
    readonly keyEntry: Instance
  }) => Stream.Stream<Uint8Array>
}

export interface Options {
  readonly events: Journal<Event>
  /** The instances that exist now. */
  readonly instances: Effect.Effect<ReadonlyArray<Instance>>
  /** Differs between runs of the master; part of the ids of events. */
  readonly run: string
  /** Completes when the key is renewed, which ends the present subscriptions. */
  readonly renewed: Effect.Effect<void>
  /** Called with 1 when a subscription starts and with -1 when it ends. */
  readonly onCount: (change: 1 | -1) => void
}

/** Runs until the journal is closed, not until the caller's scope closes: the last event announces the shutdown. */
export const make = (options: Options): Effect.Effect<EventStream> =>
  Effect.gen(function* () {
    const { events, run } = options
    const rounds = yield* EventRounds.make(events)
    const initialState = cachedInitialState(options)
    const readPage = cachedPages(options)
    /** Counts the renewals of the key. */
    let keyVersion = 0
    const watchKey = Effect.forever(
      Effect.zipRight(
        options.renewed,
        Effect.suspend(() => {
          keyVersion++
          return rounds.wakeAll("events")
        })
      )
    )
    yield* Effect.forkDaemon(Effect.raceFirst(rounds.run, watchKey))

    /** The number of the first event to send, and what to send before it. */
    const startOf = (lastId: Option.Option<string>, keyEntry: Instance): Effect.Effect<Start> =>
      Effect.gen(function* () {
        const next = yield* events.next
        const known = Option.flatMap(lastId, (id) => EventEncoding.numberOf(run, id))
        if (Option.isSome(known)) {
          return { from: Math.min(known.value + 1, next), chunks: [EventEncoding.encode([EventEncoding.retry])] }
        }
        const { chunks, from, time } = yield* initialState
        const last = EventEncoding.initial(keyEntry, time, EventEncoding.id(run, from - 1))
        return { from, chunks: [...chunks, EventEncoding.encode([last])] }
      })

    const subscribe: EventStream["subscribe"] = ({ keyEntry, lastId }) =>
      Effect.gen(function* () {
        const startVersion = keyVersion
        const start = yield* startOf(lastId, keyEntry)
        let from = start.from
        let pending = start.chunks
        const pull: Effect.Effect<Uint8Array, Option.Option<never>> = Effect.suspend(() => {
          const [chunk] = pending
          if (chunk !== undefined) {
            pending = pending.slice(1)
            return Effect.succeed(chunk)
          }
          if (startVersion !== keyVersion) return Effect.fail(Option.none())
          if (!rounds.isReleased(from)) {
            return Effect.flatMap(rounds.next, (reason) => (reason === "silence" ? Effect.succeed(comment) : pull))
          }
          return Effect.flatMap(
            readPage(from),
            Option.match({
              onNone: () => Effect.fail(Option.none()),
              onSome: (page) => {
                from = page.to
                return Effect.succeed(page.bytes)
              }
            })
          )
        })
        return Stream.repeatEffectOption(pull)
      }).pipe(
        Effect.zipLeft(
          Effect.acquireRelease(
            Effect.sync(() => options.onCount(1)),
            () => Effect.sync(() => options.onCount(-1))
          )
        ),
        Stream.unwrapScoped
      )
    return { subscribe }
  })

// internal

const comment = EventEncoding.encode([EventEncoding.comment])

interface Start {
  readonly from: number
  readonly chunks: ReadonlyArray<Uint8Array>
}

/** All instances as they were before the event `from`. */
interface InitialState extends Start {
  readonly time: number
}

/** Milliseconds for which an initial state is used again, if there were no events. */
const maxStateAge = 1000

/** Reads the instances, or returns the previous result while it is still current. */
const cachedInitialState = ({ events, instances }: Options): Effect.Effect<InitialState> => {
  let state: InitialState = { from: -1, time: 0, chunks: [] }
  return Effect.gen(function* () {
    const from = yield* events.next
    const time = yield* Clock.currentTimeMillis
    if (state.from === from && time - state.time < maxStateAge) return state
    const blocks = (yield* instances).map((instance) => EventEncoding.initial(instance, time))
    state = { from, time, chunks: EventEncoding.chunks([EventEncoding.retry, ...blocks]) }
    return state
  })
}

/** Encoded events; `to` is the number of the event after them. */
interface Page {
  readonly from: number
  readonly to: number
  readonly bytes: Uint8Array
}

const maxPageEvents = 64

/** Reads the page from an event on, or returns the last page read: most subscribers are at the same event. */
const cachedPages = ({ events, run }: Options): ((from: number) => Effect.Effect<Option.Option<Page>>) => {
  let last: Page = { from: -1, to: -1, bytes: new Uint8Array(0) }
  return (from) =>
    last.from === from
      ? Effect.succeedSome(last)
      : Effect.map(
          events.read(from, maxPageEvents),
          Option.map(({ entries, first, lost }) => {
            const blocks = lost > 0 ? [EventEncoding.lagged(lost, entries)] : []
            let size = 0
            let to = first
            for (const event of entries) {
              const block = EventEncoding.block(event, EventEncoding.id(run, to))
              size += block.length
              if (to > first && size > EventEncoding.maxChunkBytes) break
              blocks.push(block)
              to++
            }
            last = { from, to, bytes: EventEncoding.encode(blocks) }
            return last
          })
        )
}
