/**
 * Visitors on streams were reset, because their carrier or the other side could not go on with them.
 */
import * as Schema from "effect/Schema"
import { withoutStack } from "../core/WithoutStack.js"

/**
 * `Late`: their carrier had no connection that the other side answered on, for the grace period. `Over`: it had none, and the
 * session is over. `Unconfirmed`: the other side has not acknowledged the `open` frame. `Unanswered`: it has not answered the
 * `move` frame. `Restarted`: another process of the other side continues the session.
 */
export class StreamsLost extends withoutStack(
  Schema.TaggedError<StreamsLost>()("StreamsLost", {
    reason: Schema.Literal("Late", "Over", "Unconfirmed", "Unanswered", "Restarted")
  })
) {
  override get message(): string {
    return sentences[this.reason]
  }
}

// internal

const sentences = {
  Late: "a carrier had no working connection for as long as NP_RESUME_GRACE: its visitors were reset",
  Over: "a carrier had no working connection when its session ended: its visitors were reset",
  Unconfirmed: "the other side did not confirm a visitor's stream within NP_POOL_GET_TIMEOUT: the visitor was reset",
  Unanswered: "the other side did not answer when a visitor was moved to a pool connection: the visitor was reset",
  Restarted: "the process of the other side ended, and with it its connections: their visitors were reset"
}
