/**
 * The option `--metrics`: where a tunnel by itself serves /metrics and /health.
 */
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Address from "../core/Address.js"
import { UsageError } from "./UsageError.js"

export const option = Options.text("metrics").pipe(
  Options.withDescription(
    "Serves /metrics for Prometheus and /health at this host:port, or at this port of the loopback (also: NP_METRICS)"
  ),
  Options.withFallbackConfig(Config.string("NP_METRICS")),
  Options.optional,
  // An empty variable counts as not set.
  Options.map(Option.filter((text) => text !== ""))
)

/** `9100` is the loopback's port, `:9100` that of every interface. */
export const parse = (given: Option.Option<string>): Effect.Effect<Option.Option<Address.Address>, UsageError> =>
  Option.match(given, {
    onNone: () => Effect.succeedNone,
    onSome: (text) =>
      Option.match(Address.fromText(/^\d+$/.test(text) ? `127.0.0.1:${text}` : text), {
        onNone: () => new UsageError({ expected: `--metrics (or NP_METRICS) to be a port or host:port, not ${text}` }),
        onSome: Effect.succeedSome
      })
  })
