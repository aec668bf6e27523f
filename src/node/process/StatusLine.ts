/**
 * The last line of a terminal, drawn over and over, while log lines go by above it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Where it is drawn: standard error, the log's own. */
const stream = process.stderr

let current: string | undefined

/** The text of a log line, with what keeps the status line the last one. */
export const above = (line: string): string => (current === undefined ? `${line}\n` : `${clear}${line}\n${current}`)

/** Draws a status line until the scope closes; each call of the answer replaces its text. */
export const make: Effect.Effect<(text: string) => Effect.Effect<void>, never, Scope.Scope> = Effect.as(
  Effect.addFinalizer(() =>
    Effect.sync(() => {
      if (current !== undefined) stream.write("\n")
      current = undefined
    })
  ),
  (text) =>
    Effect.sync(() => {
      // A longer one would wrap, and could not be drawn over.
      current = text.slice(0, Math.max(20, (stream.columns || 80) - 1))
      stream.write(`${clear}${current}`)
    })
)

// internal

const clear = "\r\u001b[2K"
