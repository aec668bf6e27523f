/**
 * Visitors on streams were reset, because their carrier could not go on.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { withoutStack } from "../core/WithoutStack.js"

/**
 * `Late`: the carrier had no connection that the other side answered on, for the grace period. `Over`: it had none, and the
 * session is over. `Unconfirmed`: the other side has not acknowledged the `open` frame.
 */
export class StreamsLost extends withoutStack(
  Schema.TaggedError<StreamsLost>()("StreamsLost", {
    reason: Schema.Literal("Late", "Over", "Unconfirmed"),
    limit: Schema.DurationFromSelf
  })
) {
  override get message(): string {
    const limit = Duration.format(this.limit)
    const why = {
      Late: `a carrier had no working connection for ${limit}`,
      Over: "a carrier had no working connection when its session ended",
      Unconfirmed: `the other side has not acknowledged the stream of a visitor within ${limit}`
    }
    return `${why[this.reason]}: its visitors were reset`
  }
}
