/**
 * Writes files that a user has named. What has the name already stays what it is: a link, a pipe, a device.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** The file was not written, or not completely. A regular file that was there before is unchanged. */
export class WrittenFileError extends Schema.TaggedError<WrittenFileError>()("WrittenFileError", {
  file: Schema.String,
  /** What is wrong, without the name of the file: "no permission". */
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.file}: cannot be written: ${this.detail}`
  }
}

export class WrittenFile extends Context.Tag("nodepass/WrittenFile")<
  WrittenFile,
  {
    /**
     * Replaces the content of the file, and makes the file, with its folder, if it is missing.
     *
     * Symbolic links are followed. A regular file is replaced by a new one in one step, which only this user can read.
     * Anything else gets the text.
     */
    readonly write: (file: string, text: string) => Effect.Effect<void, WrittenFileError>
  }
>() {}
