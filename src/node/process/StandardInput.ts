/**
 * Standard input, which is read at most once: a line of it, or all.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import process from "node:process"
import * as SystemReason from "../../core/SystemReason.js"

/** It cannot be read, or has more than the limit. */
export class InputError extends Schema.TaggedError<InputError>()("InputError", { detail: Schema.String }) {
  override get message(): string {
    return `standard input ${this.detail}`
  }
}

export interface Options {
  /** Most bytes that are read. */
  readonly limit: number
}

/** Up to the first line feed, or the end. Logs that it waits when standard input is a terminal. */
export const line = (options: Options): Effect.Effect<Uint8Array, InputError> =>
  Effect.zipRight(
    process.stdin.isTTY ? Effect.logInfo("reading a line from the terminal") : Effect.void,
    read(options, (chunk) => chunk.includes(0x0a))
  )

export const all = (options: Options): Effect.Effect<Uint8Array, InputError> => read(options, () => false)

// internal

const read = ({ limit }: Options, isLast: (chunk: Buffer) => boolean): Effect.Effect<Uint8Array, InputError> =>
  Effect.async((resume) => {
    const input = process.stdin
    const chunks: Array<Buffer> = []
    let size = 0
    const stop = () => {
      input.off("data", onData).off("end", onEnd).off("error", onError)
      // What follows is not read, and an open standard input does not keep the process running.
      input.destroy()
    }
    const done = () => {
      stop()
      resume(Effect.succeed(new Uint8Array(Buffer.concat(chunks))))
    }
    const fail = (detail: string) => {
      stop()
      resume(new InputError({ detail }))
    }
    const onData = (chunk: Buffer) => {
      chunks.push(chunk)
      size += chunk.length
      if (size > limit) fail(`has more than ${limit} bytes`)
      else if (isLast(chunk)) done()
    }
    const onEnd = () => done()
    const onError = (error: Error) => fail(`cannot be read: ${SystemReason.of(error)}`)
    input.on("data", onData).on("end", onEnd).on("error", onError)
    return Effect.sync(stop)
  })
