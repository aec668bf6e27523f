/**
 * The master's events as server-sent events, for any number of subscribers; a slow one loses events and costs nobody anything.
 *
 * All are told in rounds: what happened is written once, as bytes that everybody is sent, and between a few of them
 * others have their turn, so that a crowd delays no call of the API.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Event, Instance } from "./Instance.js"
import type { Journal } from "./Journal.js"

export interface EventStream {
  /**
   * From the event behind `lastId` on, where that is still known; else every instance as `initial`, `own` the last of
   * them, then what happens.
   *
   * A comment goes out in every 15 s of silence. Ends with the journal, and when the key is renewed.
   */
  readonly subscribe: (options: {
    readonly lastId: Option.Option<string>
    readonly own: Instance
  }) => Stream.Stream<Uint8Array>
}

export interface Options {
  readonly events: Journal<Event>
  /** Those that are there when a subscriber comes. */
  readonly initial: Effect.Effect<ReadonlyArray<Instance>>
  /** Tells this run of the master from others, in the ids of events. */
  readonly run: string
  /** Completes when whoever subscribed until now has no right to it any more. */
  readonly renewed: Effect.Effect<void>
  /** Told of one subscriber more, or less. */
  readonly subscribed: (change: 1 | -1) => void
}

/** Its rounds go on until the journal ends, whatever becomes of the caller: the last event is that of the end. */
export const make = (options: Options): Effect.Effect<EventStream> =>
  Effect.gen(function* () {
    const { events, run } = options
    /** Subscribers who have read everything. */
    const waiting = new Set<(turn: Turn) => void>()
    /** What is behind it waits for its round. */
    let told = yield* events.next
    let ended = false
    let era = 0
    /** The page that was read last: most are at the same place. */
    let page: Page = { from: -1, to: -1, bytes: nothing }
    let greeting: Greeting = { at: -1, time: 0, chunks: [] }

    /** A few at a time. */
    const rouse = (turn: Turn) =>
      Effect.gen(function* () {
        // Those that wait again meanwhile wait for the next round.
        const present = Array.from(waiting)
        for (const [at, resume] of present.entries()) {
          if (waiting.delete(resume)) resume(turn)
          if (at % atOnce === atOnce - 1) yield* Effect.sleep(breath)
        }
      })
    const rounds = Effect.gen(function* () {
      while (true) {
        const read = yield* Effect.timeoutOption(events.read(told, 1), heartbeat)
        if (Option.isSome(read) && Option.isNone(read.value)) break
        if (Option.isNone(read)) {
          yield* rouse("silence")
          continue
        }
        const crowd = waiting.size
        told = yield* events.next
        const [took] = yield* Effect.timed(rouse("news"))
        // What happens meanwhile is for the next round; half of the time at most is theirs.
        if (crowd > few) yield* Effect.sleep(Duration.max(Duration.millis(Math.min(crowd / 4, 250)), took))
      }
      ended = true
      yield* rouse("news")
    })
    const eras = Effect.forever(
      Effect.zipRight(
        options.renewed,
        Effect.suspend(() => {
          era++
          return rouse("news")
        })
      )
    )
    yield* Effect.forkDaemon(Effect.raceFirst(rounds, eras))

    const greet = Effect.gen(function* () {
      const at = yield* events.next
      const time = yield* Clock.currentTimeMillis
      if (greeting.at === at && time - greeting.time < fresh) return greeting
      const list = yield* options.initial
      const blocks = list.map((instance) => initial(instance, time))
      greeting = { at, time, chunks: chunksOf(["retry: 3000\n\n", ...blocks]) }
      return greeting
    })
    const turn = Effect.async<Turn>((resume) => {
      const rouse = (turn: Turn) => resume(Effect.succeed(turn))
      waiting.add(rouse)
      return Effect.sync(() => waiting.delete(rouse))
    })
    const next = (from: number) =>
      Effect.map(
        events.read(from, eventsAtOnce),
        Option.map(({ entries, first, lost }): Page => {
          const blocks = lost > 0 ? [lagged(lost, entries)] : []
          let size = 0
          let to = first
          for (const event of entries) {
            const text = block(event, `${run}-${to}`)
            size += text.length
            if (to > first && size > bytesAtOnce) break
            blocks.push(text)
            to++
          }
          return { from, to, bytes: utf8.encode(blocks.join("")) }
        })
      )

    const subscribe: EventStream["subscribe"] = ({ lastId, own }) =>
      Effect.gen(function* () {
        const mine = era
        const at = yield* events.next
        const known = Option.flatMap(lastId, (id) => numberOf(run, id))
        let from = Option.match(known, { onNone: () => at, onSome: (last) => Math.min(last + 1, at) })
        let left: ReadonlyArray<Uint8Array> = [utf8.encode("retry: 3000\n\n")]
        if (Option.isNone(known)) {
          const greeting = yield* greet
          from = greeting.at
          left = [...greeting.chunks, utf8.encode(initial(own, greeting.time, `${run}-${from - 1}`))]
        }
        const pull: Effect.Effect<Uint8Array, Option.Option<never>> = Effect.suspend(() => {
          const [first] = left
          if (first !== undefined) {
            left = left.slice(1)
            return Effect.succeed(first)
          }
          if (mine !== era) return Effect.fail(Option.none())
          if (from >= told && !ended) {
            return Effect.flatMap(turn, (turn) => (turn === "silence" ? Effect.succeed(comment) : pull))
          }
          if (page.from === from) {
            from = page.to
            return Effect.succeed(page.bytes)
          }
          return Effect.flatMap(
            next(from),
            Option.match({
              onNone: () => Effect.fail(Option.none()),
              onSome: (read) => {
                page = read
                from = read.to
                return Effect.succeed(read.bytes)
              }
            })
          )
        })
        return Stream.repeatEffectOption(pull)
      }).pipe(
        Effect.zipLeft(
          Effect.acquireRelease(
            Effect.sync(() => options.subscribed(1)),
            () => Effect.sync(() => options.subscribed(-1))
          )
        ),
        Stream.unwrapScoped
      )
    return { subscribe }
  })

// internal

type Turn = "news" | "silence"

/** Events as bytes; `to` is the number of the first that is not among them. */
interface Page {
  readonly from: number
  readonly to: number
  readonly bytes: Uint8Array
}

/** All instances as they were before the event `at`. */
interface Greeting {
  readonly at: number
  readonly time: number
  readonly chunks: ReadonlyArray<Uint8Array>
}

/** More are a crowd, to whom news come at intervals: one round tells of all that has happened. */
const few = 64
/** Told in one go: 16 take less than 3 ms. */
const atOnce = 16
const breath = "1 millis"
const eventsAtOnce = 64
/** Of a page with more than one event. What one subscriber has not read is held for it up to this. */
const bytesAtOnce = 65_536
const heartbeat = "15 seconds"
/** How long instances as they are now, if nothing is said to have happened, are what they were: ms. */
const fresh = 1000
const utf8 = new TextEncoder()
const nothing = new Uint8Array(0)
const comment = utf8.encode(": still here\n\n")

const chunksOf = (blocks: ReadonlyArray<string>): ReadonlyArray<Uint8Array> => {
  const chunks: Array<Uint8Array> = []
  let text = ""
  for (const block of blocks) {
    text += block
    if (text.length < bytesAtOnce) continue
    chunks.push(utf8.encode(text))
    text = ""
  }
  if (text !== "") chunks.push(utf8.encode(text))
  return chunks
}

const initial = (instance: Instance, time: number, id?: string): string =>
  block({ type: "initial", time: DateTime.formatIso(DateTime.unsafeMake(time)), instance, logs: "" }, id)

/** At the time of what comes after them. */
const lagged = (lost: number, [next]: ReadonlyArray<Event>): string =>
  block({ type: "lagged", time: next?.time ?? "", instance: null, logs: `${lost} events lost` })

const block = (event: Event, id?: string): string =>
  `event: instance\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`

/** The number in an id of this run. */
const numberOf = (run: string, id: string): Option.Option<number> => {
  const [, of, number] = /^(.*)-(-?\d{1,15})$/.exec(id) ?? []
  return of === run && number !== undefined ? Option.some(Number(number)) : Option.none()
}
