/**
 * A status in the last line of the terminal, which is overwritten while log lines scroll above it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Standard error, as for the log: otherwise the two could not be kept apart. */
const stream = process.stderr

let current: string | undefined

/** What to write for a log line, so that the status stays below it. */
export const above = (line: string): string => (current === undefined ? `${line}\n` : `${clear}${line}\n${current}`)

/** Keeps a status line until the scope closes. The returned function sets its text. */
export const make: Effect.Effect<(text: string) => Effect.Effect<void>, never, Scope.Scope> = Effect.as(
  Effect.addFinalizer(() =>
    Effect.sync(() => {
      if (current !== undefined) stream.write("\n")
      current = undefined
    })
  ),
  (text) =>
    Effect.sync(() => {
      // A longer line would wrap, and only its last row could be overwritten.
      current = text.slice(0, Math.max(20, (stream.columns || 80) - 1))
      stream.write(`${clear}${current}`)
    })
)

// internal

const clear = "\r\u001b[2K"
