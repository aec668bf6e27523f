/**
 * The command line is not what the program takes.
 */
import * as Schema from "effect/Schema"

export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", { expected: Schema.String }) {
  override get message(): string {
    return `expected ${this.expected}; see nodepass --help`
  }
}
