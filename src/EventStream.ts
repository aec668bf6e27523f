/**
 * The master's events as server-sent events, one stream a subscriber; a slow one loses events and costs nobody anything.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Event, Instance } from "./Instance.js"
import type { Journal } from "./Journal.js"

export interface Options {
  readonly events: Journal<Event>
  /** Those that are there when the subscriber comes. */
  readonly initial: Effect.Effect<ReadonlyArray<Instance>>
  /** Tells this run of the master from others, in the ids of events. */
  readonly run: string
  /** Other subscribers now: the more, the longer events are gathered, so that one write tells several. */
  readonly subscribers: () => number
}

/**
 * From the event behind `lastId` on, where that is still known; else every instance as `initial`, then what happens.
 *
 * A comment goes out in every 15 s of silence. Ends with the journal.
 */
export const make = (options: Options, lastId: Option.Option<string>): Stream.Stream<Uint8Array> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const next = yield* options.events.next
      const known = Option.flatMap(lastId, (id) => numberOf(options.run, id))
      let from = Option.match(known, { onNone: () => next, onSome: (last) => Math.min(last + 1, next) })
      let left: ReadonlyArray<Instance> = Option.isSome(known) ? [] : yield* options.initial
      let greeted = false

      const pull = Effect.gen(function* () {
        const now = DateTime.formatIso(DateTime.unsafeMake(yield* Clock.currentTimeMillis))
        if (!greeted) {
          greeted = true
          return "retry: 3000\n\n"
        }
        if (left.length > 0) {
          const some = left.slice(0, initialAtOnce)
          left = left.slice(initialAtOnce)
          return some
            .map((instance, at) => {
              const isLast = left.length === 0 && at === some.length - 1
              return block(
                { type: "initial", time: now, instance, logs: "" },
                isLast ? `${options.run}-${from - 1}` : undefined
              )
            })
            .join("")
        }
        const read = yield* Effect.timeoutOption(options.events.read(from, eventsAtOnce), heartbeat)
        if (Option.isNone(read)) return ": still here\n\n"
        if (Option.isNone(read.value)) return yield* Effect.fail(Option.none())
        const { entries, first, lost } = read.value.value
        from = first + entries.length
        const crowd = options.subscribers()
        if (crowd > 64) yield* Effect.sleep(Math.min(crowd / 4, 250))
        const told: Event = { type: "lagged", time: now, instance: null, logs: `${lost} events lost` }
        return [
          ...(lost > 0 ? [block(told)] : []),
          ...entries.map((event, at) => block(event, `${options.run}-${first + at}`))
        ].join("")
      })
      return Stream.repeatEffectOption(Effect.map(pull, (text) => utf8.encode(text)))
    })
  )

// internal

const initialAtOnce = 32
const eventsAtOnce = 64
const heartbeat = "15 seconds"
const utf8 = new TextEncoder()

const block = (event: Event, id?: string): string =>
  `event: instance\n${id === undefined ? "" : `id: ${id}\n`}data: ${dataOf(event)}\n\n`

/** Written once for all subscribers. */
const texts = new WeakMap<Event, string>()
const dataOf = (event: Event): string => {
  const known = texts.get(event)
  if (known !== undefined) return known
  const text = JSON.stringify(event)
  texts.set(event, text)
  return text
}

/** The number in an id of this run. */
const numberOf = (run: string, id: string): Option.Option<number> => {
  const [, of, number] = /^(.*)-(-?\d{1,15})$/.exec(id) ?? []
  return of === run && number !== undefined ? Option.some(Number(number)) : Option.none()
}
