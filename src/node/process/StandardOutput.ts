/**
 * Standard output, which can fail: a full disk, a closed pipe. A command that cannot print its result has failed.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Fs from "node:fs"
import { devNull } from "node:os"
import process from "node:process"
import * as SystemReason from "../../core/SystemReason.js"

/** Nothing more can be written. Died with, because no caller of `Console.log` can handle it. */
export class OutputError extends Schema.TaggedError<OutputError>()("OutputError", { cause: Schema.Defect }) {
  override get message(): string {
    return `standard output: ${SystemReason.of(this.cause)}`
  }

  /** Whether the reader has closed the pipe, as `head` does after its last line. */
  get isClosedPipe(): boolean {
    return SystemReason.codeOf(this.cause) === "EPIPE"
  }
}

/** Writes the text, and returns once the system has it. Dies with an `OutputError`. */
export const write = (text: string): Effect.Effect<void> => Effect.orDie(attempt(text))

/** Writes what must not be lost. Fails also when it goes nowhere: standard output is closed, or the null device. */
export const deliver = (text: string): Effect.Effect<void, OutputError> =>
  Effect.suspend(() =>
    goesNowhere() ? new OutputError({ cause: new Error("it is closed, or the null device") }) : attempt(text)
  )

// internal

const attempt = (text: string): Effect.Effect<void, OutputError> =>
  Effect.async((resume) => {
    process.stdout.write(text, (error) =>
      resume(error instanceof Error ? new OutputError({ cause: error }) : Effect.void)
    )
  })

/** When it is closed, Node opens the null device in its place. */
const goesNowhere = (): boolean => {
  try {
    const output = Fs.fstatSync(1)
    return output.isCharacterDevice() && output.rdev === Fs.statSync(devNull).rdev
  } catch {
    // What is wrong with it shows when it is written.
    return false
  }
}

// The `error` event ends the process if nothing listens. A log that has lost its reader must not stop the program.
process.stdout.on("error", () => {})
process.stderr.on("error", () => {})
