/**
 * The log of one instance: kept for readers, published to subscribers, and forwarded to the log of the process.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Logger from "effect/Logger"
import * as LogLine from "../core/LogLine.js"
import * as Journal from "./Journal.js"

export interface InstanceLog {
  /** The last lines: at most 1000, and at most 256 KiB. */
  readonly journal: Journal.Journal<string>
  /** Runs the effect with this log as its logger, at the given level. */
  readonly capture: (level: LogLine.Level) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export interface Options {
  /** The id of the instance. */
  readonly id: string
  /** Called for each line. */
  readonly onLine: (line: string) => void
}

/** Lines beyond 400 at once, and then 100 a second, are dropped and counted. A tunnel logs less than that in an hour. */
export const make = ({ id, onLine }: Options): InstanceLog => {
  const journal = Journal.make<string>({ limit: maxLines, size: { limit: maxBytes, of: (line) => line.length } })
  let tokens = burst
  let lastTime = 0
  let dropped = 0
  const write = (line: string) => {
    const limited = line.length > maxLineLength ? `${line.slice(0, maxLineLength)}…` : line
    journal.append(limited)
    onLine(limited)
  }
  /** Writes records here and forwards them to the loggers of the process. */
  const forwardingTo = (loggers: HashSet.HashSet<Logger.Logger<unknown, unknown>>) =>
    Logger.make<unknown, void>((record) => {
      const now = record.date.getTime()
      tokens = Math.min(burst, tokens + ((now - lastTime) / 1000) * linesPerSecond)
      lastTime = now
      if (tokens < 1) {
        dropped++
        return
      }
      tokens--
      const own = { ...record, annotations: HashMap.remove(record.annotations, "instance") }
      if (dropped > 0) {
        write(text.log({ ...own, message: `${dropped} lines dropped: more than ${linesPerSecond} lines a second` }))
      }
      dropped = 0
      write(text.log(own))
      for (const logger of loggers) logger.log(record)
    })
  return {
    journal,
    capture: (level) => (self) =>
      Effect.flatMap(FiberRef.get(FiberRef.currentLoggers), (loggers) =>
        self.pipe(
          Effect.annotateLogs({ instance: id }),
          Effect.locally(FiberRef.currentLoggers, HashSet.make(forwardingTo(loggers))),
          Logger.withMinimumLogLevel(LogLine.minimum(level))
        )
      )
  }
}

// internal

const text = LogLine.text()
const maxLines = 1000
const maxBytes = 262_144
const maxLineLength = 4096
const burst = 400
const linesPerSecond = 100
