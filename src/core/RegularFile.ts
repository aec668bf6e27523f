/**
 * Reads files that a user has named, so that no path can hang the program or fill its memory.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * The file cannot be read. `NotRegular`: it is a folder, a pipe, a socket or a device. `TooLarge`: it has more bytes than the
 * limit. `TimedOut`: the file system did not answer within the deadline.
 */
export class RegularFileError extends Schema.TaggedError<RegularFileError>()("RegularFileError", {
  file: Schema.String,
  reason: Schema.Literal("NotFound", "Forbidden", "NotRegular", "TooLarge", "TimedOut", "Failed"),
  /** What is wrong, without the name of the file: "it is a pipe". */
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.file}: cannot be read: ${this.detail}`
  }
}

/** What was read, all of one open file. */
export interface Content {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** The permission bits, as in `chmod`: `0o600`. */
  readonly mode: number
}

export interface Options {
  /** Most bytes that the file may have. Defaults to 1 MiB. */
  readonly limit?: number | undefined
  /** For everything: waiting for other reads, opening and reading. Defaults to 10 seconds. */
  readonly deadline?: Duration.Duration | undefined
}

export class RegularFile extends Context.Tag("nodepass/RegularFile")<
  RegularFile,
  {
    /** The content of a regular file; symbolic links are followed. */
    readonly read: (file: string, options?: Options) => Effect.Effect<Content, RegularFileError>
  }
>() {}

/** The content as UTF-8. Bytes that are none become U+FFFD; a byte order mark is left out. */
export const text = ({ bytes }: Content): string => new TextDecoder().decode(bytes)
