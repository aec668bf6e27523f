/**
 * Standard output, which can fail: a full disk, a closed pipe. A command that cannot print its result has failed.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import process from "node:process"

/** Nothing more can be written. Died with, because no caller of `Console.log` can handle it. */
export class OutputError extends Schema.TaggedError<OutputError>()("OutputError", { cause: Schema.Defect }) {
  override get message(): string {
    return `standard output: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }

  /** Whether the reader has gone away, as `head` does when it has enough. */
  get isClosedPipe(): boolean {
    return this.cause instanceof Error && "code" in this.cause && this.cause.code === "EPIPE"
  }
}

/** Writes the text, and returns once the system has it. Dies with an `OutputError`. */
export const write = (text: string): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    process.stdout.write(text, (error) =>
      resume(error instanceof Error ? Effect.die(new OutputError({ cause: error })) : Effect.void)
    )
  })

// internal

// The `error` event ends the process if nothing listens. A log on standard error that nobody reads is no reason to stop.
process.stdout.on("error", () => {})
process.stderr.on("error", () => {})
