/**
 * Invalid arguments on the command line.
 */
import * as Schema from "effect/Schema"

export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", {
  /** The argument or option, with its value if that is what is wrong. */
  argument: Schema.String,
  expected: Schema.String
}) {
  override get message(): string {
    return `${this.argument}: expected ${this.expected}; see nodepass --help`
  }
}
