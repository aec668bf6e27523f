/**
 * The option `--metrics`: the address where a tunnel serves /metrics and /health.
 */
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Address from "../core/Address.js"
import { UsageError } from "./UsageError.js"

export const option = Options.text("metrics").pipe(
  Options.withPseudoName("address"),
  Options.withDescription(
    "Serve /metrics for Prometheus and /health at host:port, or at a port of the loopback. Environment: NP_METRICS"
  ),
  Options.withFallbackConfig(Config.string("NP_METRICS")),
  Options.optional,
  // An empty variable counts as not set.
  Options.map(Option.filter((text) => text !== ""))
)

/** `9100` is a port of the loopback, `:9100` a port of every interface. */
export const parse = (given: Option.Option<string>): Effect.Effect<Option.Option<Address.Address>, UsageError> =>
  Option.match(given, {
    onNone: () => Effect.succeedNone,
    onSome: (text) =>
      Option.match(Address.fromText(/^\d+$/.test(text) ? `127.0.0.1:${text}` : text), {
        onNone: () =>
          new UsageError({
            argument: `--metrics=${text}`,
            expected: "a port or host:port, in --metrics or NP_METRICS"
          }),
        onSome: Effect.succeedSome
      })
  })
