/**
 * What one managed tunnel logs: kept for readers, told to subscribers, and passed on to the process's own log.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Logger from "effect/Logger"
import * as Journal from "./Journal.js"
import * as LogLine from "../core/LogLine.js"

export interface InstanceLog {
  /** The last lines; see `lines` and `bytes` below. */
  readonly journal: Journal.Journal<string>
  /** Runs the effect with this as its log, its level as given. */
  readonly hear: (level: LogLine.Level) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export interface Options {
  /** The instance. */
  readonly id: string
  /** Told of each line. */
  readonly tell: (line: string) => void
}

/** More lines at once than a tunnel says in an hour, or a hundred a second for long, are left out and counted. */
export const make = ({ id, tell }: Options): InstanceLog => {
  const journal = Journal.make<string>({ limit: lines, size: { limit: bytes, of: (line) => line.length } })
  let room = burst
  let last = 0
  let left = 0
  const say = (line: string) => {
    const short = line.length > longest ? `${line.slice(0, longest)}…` : line
    journal.append(short)
    tell(short)
  }
  const pass = (outer: HashSet.HashSet<Logger.Logger<unknown, unknown>>) =>
    Logger.make<unknown, void>((entry) => {
      const now = entry.date.getTime()
      room = Math.min(burst, room + ((now - last) / 1000) * rate)
      last = now
      if (room < 1) {
        left++
        return
      }
      room--
      const own = { ...entry, annotations: HashMap.remove(entry.annotations, "instance") }
      if (left > 0) say(text.log({ ...own, message: `${left} lines left out: too many at once` }))
      left = 0
      say(text.log(own))
      for (const logger of outer) logger.log(entry)
    })
  return {
    journal,
    hear: (level) => (self) =>
      Effect.flatMap(FiberRef.get(FiberRef.currentLoggers), (outer) =>
        self.pipe(
          Effect.annotateLogs({ instance: id }),
          Effect.locally(FiberRef.currentLoggers, HashSet.make(pass(outer))),
          Logger.withMinimumLogLevel(LogLine.minimum(level))
        )
      )
  }
}

// internal

const text = LogLine.text()
const lines = 1000
const bytes = 262_144
const longest = 4096
const burst = 400
const rate = 100
